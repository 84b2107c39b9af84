#include "hetsp/base/strong_index.h"

#include <type_traits>
#include <unordered_set>

#include "hetsp/base/ceil_div.h"
#include "support/check.h"

using namespace hetsp;

static_assert(!std::is_convertible_v<Rank, SequenceIndex>);
static_assert(!std::is_convertible_v<int, Rank>);
static_assert(!std::is_convertible_v<Rank, int>);

TEST(orders_and_hashes) {
  CHECK(Rank(1) < Rank(2));
  CHECK_EQ(Rank(3).value(), 3);
  CHECK_EQ((std::unordered_set<Rank>{Rank(1), Rank(1), Rank(2)}.size()), 2u);
}

TEST(ceil_div_at_edges) {
  CHECK_EQ(ceil_div(0, 3), 0);
  CHECK_EQ(ceil_div(3, 3), 1);
  CHECK_EQ(ceil_div(4, 3), 2);
}

TEST_MAIN()
