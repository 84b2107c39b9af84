#include "hetsp/packing/bisection.h"

#include <cmath>
#include <limits>
#include <string>

#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(never_above_the_best_and_done_near_the_linear_programme) {
  int solved = 0, met = 0;
  for (unsigned seed = 0; seed < 800; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 7);
    const double best = brute_force_makespan(instance);
    if (std::isinf(best)) continue;
    Bisection bisection(instance);
    double last = bisection.lower(), upper = std::numeric_limits<double>::infinity();
    CHECK(last <= best * (1 + 1e-12));
    upper = best * 1.5;
    for (int slice = 0; slice < 200 && !bisection.done(); ++slice) {  // in slices, as rounds give them
      Effort effort(3'000);
      if (const auto packing = bisection.advance(effort, upper, 0.0)) {
        hetsp::packing::check(instance, *packing);
        CHECK(packing->makespan < upper);
        upper = packing->makespan;
      }
      CHECK(bisection.lower() >= last && bisection.lower() <= best * (1 + 1e-12));
      last = bisection.lower();
      if (last >= upper) break;
    }
    ++solved;
    met += upper <= best * (1 + 1e-9);
  }
  CHECK(solved > 400);
  CHECK(met > solved * 8 / 10);
}

TEST_MAIN()
