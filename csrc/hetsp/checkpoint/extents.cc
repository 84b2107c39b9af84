#include "hetsp/checkpoint/extents.h"

#include <algorithm>

namespace hetsp::checkpoint {

std::vector<Extent> extents_of(std::int64_t begin, const std::vector<std::int64_t>& bytes) {
  std::vector<Extent> extents;
  std::int64_t open = begin, end = begin;  // [open, end) is not in an extent yet
  const auto close = [&] {
    if (end > open) extents.push_back({open, end, {}});
    open = end;
  };
  for (const std::int64_t span : bytes) {
    const bool alone = span > kLargestSharer;
    if (alone || end - open + span > kLargestExtent) close();
    for (std::int64_t rest = span; rest > 0;) {
      const std::int64_t piece = std::min(rest, kLargestExtent - (end - open));
      end += piece, rest -= piece;
      if (end - open == kLargestExtent) close();
    }
    if (alone) close();
  }
  close();
  return extents;
}

}  // namespace hetsp::checkpoint
