#include "hetsp/attention/softmax_state.h"

#include "support/check.h"

using namespace hetsp::attention;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
using State = SoftmaxState<double>;

}  // namespace

TEST(empty_is_neutral_and_never_nan) {
  const State empty, some{3.0, 1.5};
  CHECK_EQ(lse(empty), -kInf);
  const auto both = merge(empty, empty);
  CHECK_EQ(both.state.max, -kInf);
  CHECK_EQ(both.state.sum, 0.0);
  for (const auto& joined : {merge(some, empty), merge(empty, some)}) {
    CHECK_EQ(joined.state.max, 3.0);
    CHECK_EQ(joined.state.sum, 1.5);
  }
  CHECK_EQ(merge(some, empty).a, 1.0);
  CHECK_EQ(merge(some, empty).b, 0.0);
}

TEST(merging_adds_exponentials) {
  for (const double shift : {0.0, -1e5, 1e5}) {
    const State a = state_from_lse(shift + std::log(3.0)), b = state_from_lse(shift + std::log(5.0));
    CHECK_NEAR(lse(merge(a, b).state), shift + std::log(8.0), 1e-15 * (1 + std::abs(shift)));
  }
}

// FlashAttention's trap: with the maximum of an empty state stored as 0, a later score of -1e5 would vanish.
TEST(a_very_negative_part_survives_an_empty_one) {
  const auto joined = merge(merge(State{}, State{}).state, state_from_lse(-1e5));
  CHECK_NEAR(lse(joined.state), -1e5, 1e-9);
}

TEST(nan_is_kept) { CHECK(std::isnan(lse(State{-kInf, std::nan("")}))); }

TEST_MAIN()
