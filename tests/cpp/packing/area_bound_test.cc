#include "hetsp/packing/area_bound.h"

#include <cmath>
#include <string>

#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(area_by_hand) {
  // One second a token on one rank, 0.6 on each of two: 20 tokens cost 20 or 24 rank-seconds.
  const Instance instance{4, 0, {{1, 50, 0.0, 1.0, 0.0}, {2, 100, 0.0, 0.6, 0.0}}, {{20, 0.0}, {20, 0.0}, {70, 0.0}}};
  const AreaBound bound(instance, make_types(instance.items));
  CHECK_NEAR(bound.area(100.0), 20 + 20 + 84, 1e-12);
  CHECK_NEAR(bound.area(42.0), 20 + 20 + 84, 1e-12);
  CHECK(std::isinf(bound.area(41.9)));
  CHECK_NEAR(bound.makespan(), 42.0, 1e-6);  // 124 / 4 = 31, but the longest takes 42
  CHECK_NEAR(bound.shortest(0), 42.0, 1e-12);
}

TEST(never_above_the_least_makespan) {
  int tight = 0;
  for (unsigned seed = 0; seed < 3000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 6);
    const double best = brute_force_makespan(instance);
    const double bound = AreaBound(instance, make_types(instance.items)).makespan();
    CHECK(bound <= best);
    tight += std::isfinite(best) && bound > 0.95 * best;
    for (const double width : {0.1, 0.5}) CHECK(AreaBound(instance, make_types(instance.items, width)).makespan() <= best);
  }
  CHECK(tight > 500);
}

TEST_MAIN()
