#include "hetsp/attention/segment.h"

#include <algorithm>

namespace hetsp::attention {

std::int64_t visible_pairs(const Segment& segment) {
  std::int64_t pairs = 0;
  for (std::int64_t row = segment.q_begin; row < segment.q_end; ++row) {
    const RowRange keys = visible_keys(segment, row);
    pairs += std::max<std::int64_t>(0, keys.end - keys.begin);
  }
  return pairs;
}

}  // namespace hetsp::attention
