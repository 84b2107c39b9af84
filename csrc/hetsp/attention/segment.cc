#include "hetsp/attention/segment.h"

#include <algorithm>

namespace hetsp::attention {

namespace {

// sum of clamp(y, 0, n) over all integers y <= x.
std::int64_t clamped_sum(std::int64_t x, std::int64_t n) {
  if (x <= 0) return 0;
  const std::int64_t rising = std::min(x, n);
  return rising * (rising + 1) / 2 + (x - rising) * n;
}

// Pairs whose distance (key position - query position) is at most `distance`: row i of m sees clamp(i + t + 1, 0, n) keys.
std::int64_t pairs_within(const Segment& segment, std::int64_t distance) {
  const std::int64_t m = segment.q_end - segment.q_begin, n = segment.k_end - segment.k_begin;
  const std::int64_t t = distance - segment.k_pos0 + segment.q_pos0;
  return clamped_sum(t + m, n) - clamped_sum(t, n);
}

}  // namespace

std::int64_t visible_pairs(const Segment& segment) {
  const std::int64_t rows = segment.q_end - segment.q_begin, keys = segment.k_end - segment.k_begin;
  if (rows <= 0 || keys <= 0) return 0;
  const std::int64_t up_to_right = segment.right < 0 ? rows * keys : pairs_within(segment, segment.right);
  const std::int64_t beyond_left = segment.left < 0 ? 0 : pairs_within(segment, -segment.left - 1);
  return up_to_right - beyond_left;
}

}  // namespace hetsp::attention
