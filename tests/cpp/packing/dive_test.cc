#include "hetsp/packing/dive.h"

#include <cmath>
#include <string>

#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(what_it_returns_is_a_packing_and_near_the_best) {
  int feasible = 0, near = 0;
  for (unsigned seed = 0; seed < 1500; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed, 7);
    if (seed % 3 == 0) instance.ranks_per_node = 2;
    const double best = brute_force_makespan(instance);
    if (std::isinf(best)) continue;
    const ItemTypes types = make_types(instance.items, seed % 2 ? 0.2 : 0.0);
    ConfigurationLp lp(instance.modes, types.largest);
    Effort effort;
    ++feasible;
    const auto packing = dive(instance, types, lp, best * (seed % 2 ? 1.3 : 1.0), effort);
    if (!packing) continue;
    hetsp::packing::check(instance, *packing);
    CHECK(packing->makespan >= best * (1 - 1e-9));
    near += packing->makespan <= best * 1.05;
  }
  CHECK(feasible > 800);
  CHECK(near > feasible * 3 / 4);
}

TEST(nothing_to_pack) {
  const Instance instance{2, 0, {{1, 10, 0.0, 1.0, 0.0}}, {}};
  ConfigurationLp lp(instance.modes, {});
  Effort effort;
  const auto packing = dive(instance, make_types(instance.items), lp, 1.0, effort);
  CHECK(packing && packing->bins.empty() && packing->makespan == 0.0);
}

TEST_MAIN()
