#include "hetsp/planner/cut.h"

#include <algorithm>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

TEST(every_token_once_for_every_cut) {
  for (Cut cut : {Cut::contiguous, Cut::zigzag, Cut::balanced})
    for (int parts = 1; parts <= 9; ++parts)
      for (std::int64_t tokens = 0; tokens <= 4 * parts + 3; ++tokens)
        for (std::int64_t alignment : {1, 4}) {
          const auto held = cut_tokens(tokens, parts, cut, alignment);
          std::vector<int> seen(tokens);
          for (const auto& part : held) {
            std::int64_t last = -1;
            for (const auto& range : part) {
              CHECK(last < range.begin && range.begin < range.end);
              last = range.end;
              CHECK(range.begin % alignment == 0);
              for (auto token = range.begin; token < range.end; ++token) ++seen[token];
            }
          }
          CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
        }
}

TEST(zigzag_pairs_first_with_last) {
  const auto held = cut_tokens(13, 3, Cut::zigzag);  // cuts 0 2 4 6 8 10 13
  CHECK((held[0] == std::vector<TokenRange>{{0, 2}, {10, 13}}));
  CHECK((held[1] == std::vector<TokenRange>{{2, 4}, {8, 10}}));
  CHECK((held[2] == std::vector<TokenRange>{{4, 8}}));
}

TEST(zigzag_and_balanced_have_equal_causal_area) {
  const std::int64_t tokens = 100'003;
  for (Cut cut : {Cut::zigzag, Cut::balanced})
    for (int parts : {2, 3, 5, 8})
      for (const auto& part : cut_tokens(tokens, parts, cut)) {
        double area = 0;
        for (const auto& range : part)
          area += 0.5 * (static_cast<double>(range.end) * static_cast<double>(range.end) -
                         static_cast<double>(range.begin) * static_cast<double>(range.begin));
        CHECK_NEAR(area * parts / (0.5 * static_cast<double>(tokens) * static_cast<double>(tokens)), 1.0, 1e-3);
      }
}

TEST(tokens_held_agrees_with_the_ranges) {
  for (int degree = 1; degree <= 9; ++degree)
    for (std::int64_t tokens = 0; tokens <= 6 * degree + 1; ++tokens) {
      check::context() = concat(tokens, " tokens on ", degree);
      for (const Cut cut : {Cut::contiguous, Cut::zigzag, Cut::balanced}) {
        const auto held = cut_tokens(tokens, degree, cut);
        std::int64_t most = 0;
        for (int position = 0; position < degree; ++position) {
          std::int64_t sum = 0;
          for (const auto& range : held[position]) sum += range.end - range.begin;
          CHECK_EQ(sum, tokens_held(tokens, cut, degree, position));
          most = std::max(most, sum);
        }
        if (cut == Cut::zigzag) CHECK_EQ(most, most_tokens_held(tokens, degree));
      }
    }
}

TEST(least_degree_is_the_first_that_fits) {
  for (std::int64_t tokens = 0; tokens <= 60; ++tokens)
    for (std::int64_t capacity = 1; capacity <= 20; ++capacity) {
      check::context() = concat(tokens, " tokens, capacity ", capacity);
      int first = 0;
      for (int degree = 8; degree >= 1; --degree)
        if (most_tokens_held(tokens, degree) <= capacity) first = degree;
      CHECK_EQ(least_degree(tokens, capacity, 8), first);
    }
}

TEST(bad_values_are_named) {
  CHECK_THROWS(InvalidArgument, "-1 tokens", cut_tokens(-1, 2, Cut::zigzag));
  CHECK_THROWS(InvalidArgument, "0 parts", cut_tokens(4, 0, Cut::zigzag));
  CHECK_THROWS(InvalidArgument, "alignment is 0", cut_tokens(4, 2, Cut::zigzag, 0));
  CHECK_THROWS(InvalidArgument, "not on 3", cut_tokens(4, 3, Cut::whole));
}

TEST_MAIN()
