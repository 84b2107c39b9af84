#include "hetsp/comm/link_cost.h"

#include <algorithm>

#include "support/check.h"

using namespace hetsp::comm;

// The table of gains at ten times the speed inside a node: 1 / (1/x + 2 (1 - 1/x) / 10) in one piece, x in many.
TEST(gains_are_those_of_the_formula) {
  const LinkRates rates{.inter = 1, .intra = 10};
  for (const int rails : {2, 4, 8}) {
    const double serial = direct_seconds(rates, 1e6) / spread_seconds(rates, 1e6, rails, 1);
    CHECK_NEAR(serial, 1 / (1.0 / rails + 0.2 * (1 - 1.0 / rails)), 1e-9);
    const double pipelined = direct_seconds(rates, 1e6) / spread_seconds(rates, 1e6, rails, 1'000'000);
    CHECK_NEAR(pipelined, std::min<double>(rails, 10.0 * rails / (rails - 1)), 1e-4);
  }
}

TEST(one_rail_or_one_chunk_is_not_spread) {
  const LinkRates fast{.inter = 1e6, .intra = 1e9};
  CHECK(!spread_pays(fast, 1 << 30, 1 << 18, 1));
  CHECK(!spread_pays(fast, 1 << 18, 1 << 18, 4));
  CHECK(spread_pays(fast, (1 << 18) + 1, 1 << 18, 4));
  CHECK(spread_pays({}, 1 << 20, 1 << 18, 4));  // rates not known
}

TEST(a_node_slower_inside_than_its_nics_is_not_crossed) {
  CHECK(!spread_pays({.inter = 2e9, .intra = 1e9}, 1 << 26, 1 << 18, 2));
  CHECK(spread_pays({.inter = 1e9, .intra = 2e9}, 1 << 26, 1 << 18, 2));
}

TEST_MAIN()
