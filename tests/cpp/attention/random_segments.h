// Small lists of segments, biased to corners: shared and touching runs, empty ones, any window and position.
#pragma once

#include <random>
#include <vector>

#include "hetsp/attention/segment.h"

namespace attention_test {

inline std::vector<hetsp::attention::Segment> random_segments(std::mt19937& random, std::int64_t total, int most) {
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  const std::int64_t longest = total / pick(1, 10);
  std::vector<hetsp::attention::Segment> segments;
  for (std::int64_t i = pick(0, most); i > 0; --i) {
    hetsp::attention::Segment s{};
    s.q_begin = pick(0, total), s.q_end = std::min(total, s.q_begin + pick(0, longest));
    s.k_begin = pick(0, total), s.k_end = std::min(total, s.k_begin + pick(0, longest));
    s.q_pos0 = pick(-5, 20), s.k_pos0 = pick(0, 20), s.left = pick(-1, 9), s.right = pick(-1, 9);
    segments.push_back(s);
  }
  return segments;
}

}  // namespace attention_test
