#include "hetsp/packing/dive.h"

#include <cmath>
#include <limits>
#include <optional>
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
    Dive dive(instance);
    CHECK(!dive.going());
    Effort all;
    const double T = best * (seed % 2 ? 1.3 : 1.0);
    (void)lp.solve(T, types.count, instance.ranks, all);  // its columns are what is fixed
    dive.begin(types, T, std::numeric_limits<double>::infinity());
    ++feasible;
    std::optional<Packing> packing;
    for (int slice = 0; slice < 1000 && dive.going(); ++slice) {  // in slices, as rounds give them
      CHECK(!packing);
      Effort effort(20'000);
      packing = dive.advance(lp, effort);
    }
    CHECK(!dive.going());
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
  const ItemTypes types = make_types(instance.items);
  ConfigurationLp lp(instance.modes, {});
  Dive dive(instance);
  dive.begin(types, 1.0, 2.0);
  Effort effort;
  const auto packing = dive.advance(lp, effort);
  CHECK(packing && packing->bins.empty() && packing->makespan == 0.0 && !dive.going());
}

TEST_MAIN()
