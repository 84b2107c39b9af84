#include "hetsp/staging/gather.h"

#include <algorithm>

namespace hetsp::staging {

std::vector<GatherParams> gathers_of(const std::vector<DevicePiece>& pieces, char* to) {
  std::vector<GatherParams> gathers;
  for (const DevicePiece& piece : pieces)
    for (std::int64_t done = 0; done < piece.bytes;) {
      const std::int64_t bytes = std::min(kLongestGatherPiece, piece.bytes - done);
      if (gathers.empty() || gathers.back().count == GatherParams::kMost) gathers.emplace_back().to = to;
      GatherParams& last = gathers.back();
      last.pieces[last.count++] = {piece.from + done, static_cast<std::uint32_t>(to - last.to),
                                   static_cast<std::uint32_t>(bytes)};
      done += bytes, to += bytes;
    }
  return gathers;
}

}  // namespace hetsp::staging
