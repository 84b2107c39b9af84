#include "hetsp/planner/workload.h"

#include <limits>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

TEST(visible_pairs_counts_what_the_mask_lets_through) {
  for (std::int64_t tokens = 0; tokens <= 12; ++tokens)
    for (std::int64_t window = -1; window <= 14; ++window) {
      check::context() = concat(tokens, " tokens, window ", window);
      std::int64_t pairs = 0;
      for (std::int64_t query = 0; query < tokens; ++query)
        for (std::int64_t key = 0; key <= query; ++key) pairs += window < 0 || query - key <= window;
      CHECK_EQ(visible_pairs(tokens, window), pairs);
    }
}

TEST(visible_pairs_of_huge_sequences_saturate) {
  CHECK_EQ(visible_pairs(4294967295), std::int64_t{4294967295} * 2147483648);
  CHECK_EQ(visible_pairs(std::int64_t{1} << 40), std::numeric_limits<std::int64_t>::max());
  CHECK_EQ(visible_pairs(std::int64_t{1} << 40, 0), std::int64_t{1} << 40);
}

TEST(make_workload_names_a_bad_length) {
  CHECK_EQ(total_tokens(make_workload(std::vector<std::int64_t>{3, 0, 4})), 7);
  CHECK_THROWS(InvalidArgument, "no lengths", make_workload({}));
  CHECK_THROWS(InvalidArgument, "lengths[1] is -4", make_workload(std::vector<std::int64_t>{3, -4}));
  CHECK_THROWS(InvalidArgument, "window is -2", make_workload(std::vector<std::int64_t>{3}, -2));
}

TEST(check_names_a_bad_field) {
  const auto one = [](Sequence sequence) { planner::check(std::vector<Sequence>{{1, 1}, sequence}); };
  CHECK_THROWS(InvalidArgument, "sequence 1 has -1 tokens", (one({-1, 0}), 0));
  CHECK_THROWS(InvalidArgument, "sequence 1 has -3 visible pairs", (one({1, -3}), 0));
  CHECK_THROWS(InvalidArgument, "fixed cost of -0.5", (one({1, 1, -0.5}), 0));
  CHECK_THROWS(InvalidArgument, "no sequences", (planner::check(std::span<const Sequence>{}), 0));
}

TEST_MAIN()
