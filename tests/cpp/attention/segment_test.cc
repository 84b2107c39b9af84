#include "hetsp/attention/segment.h"

#include <random>

#include "support/check.h"

using namespace hetsp::attention;

namespace {

bool visible(const Segment& s, std::int64_t row, std::int64_t key) {
  const std::int64_t distance = (s.k_pos0 + key - s.k_begin) - (s.q_pos0 + row - s.q_begin);
  return (s.left < 0 || distance >= -s.left) && (s.right < 0 || distance <= s.right);
}

}  // namespace

TEST(runs_match_the_definition_pair_by_pair) {
  std::mt19937 random(7);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random);
  };
  for (int round = 0; round < 2000; ++round) {
    check::context() = "round " + std::to_string(round) + " of seed 7";
    Segment s{};
    s.q_begin = pick(0, 5), s.q_end = s.q_begin + pick(0, 9), s.k_begin = pick(0, 5), s.k_end = s.k_begin + pick(0, 9);
    s.q_pos0 = pick(-3, 12), s.k_pos0 = pick(0, 12), s.left = pick(-1, 4), s.right = pick(-1, 4);
    std::int64_t pairs = 0;
    for (std::int64_t row = s.q_begin; row < s.q_end; ++row)
      for (std::int64_t key = s.k_begin; key < s.k_end; ++key) {
        const RowRange keys = visible_keys(s, row), queries = visible_queries(s, key);
        CHECK_EQ(visible(s, row, key), keys.begin <= key && key < keys.end);
        CHECK_EQ(visible(s, row, key), queries.begin <= row && row < queries.end);
        pairs += visible(s, row, key);
      }
    CHECK_EQ(visible_pairs(s), pairs);
  }
}

TEST(causal_bottom_right) {
  const Segment s{0, 3, 0, 5, 2, 0, -1, 0};  // 3 queries, 5 keys
  CHECK_EQ(visible_keys(s, 0).end, 3);
  CHECK_EQ(visible_keys(s, 2).end, 5);
  CHECK_EQ(visible_pairs(s), 12);
}

TEST_MAIN()
