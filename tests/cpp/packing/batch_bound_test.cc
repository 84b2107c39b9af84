#include "hetsp/packing/batch_bound.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "packing/brute_force_batch.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

TEST(never_above_the_cheapest_batch) {
  int solved = 0, near = 0;
  double sum = 0.0;
  for (unsigned seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 5);
    const double fixed = seed % 3 == 0 ? 0.0 : 0.7 * (seed % 5);
    const int most = seed % 4 == 0 ? 2 : 0;
    const double best = brute_force_batch(instance, fixed, most);
    if (std::isinf(best) || instance.items.empty()) continue;
    const int parts = 1 + static_cast<int>(seed % 2);
    BatchBound bound(instance, fixed, most, std::vector<double>(parts, std::max(0.0, best * 1.2 / parts - fixed)));
    double last = bound.lower();
    CHECK(last <= best * (1 + 1e-9));
    for (int slice = 0; slice < 20 && !bound.done(); ++slice) {
      Effort effort(300'000);
      bound.advance(effort, best * 1.2 + parts * fixed, 0.0);
      CHECK(bound.lower() >= last && bound.lower() <= best * (1 + 1e-9));
      last = bound.lower();
    }
    ++solved;
    near += best <= 0.0 || last >= 0.9 * best;
    sum += best > 0.0 ? last / best : 1.0;
  }
  CHECK(solved > 150);
  CHECK(near > solved / 2);
  CHECK(sum > 0.8 * solved);
}

// With a plan that is optimal, nothing is left to look for, and no number of micro-batches is asked for that there cannot be.
TEST(ends_at_an_optimal_plan) {
  int closed = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed, 4);
    instance.items.resize(std::min<std::size_t>(instance.items.size(), 1));
    const double best = brute_force_batch(instance, 0.5);
    if (std::isinf(best) || instance.items.empty()) continue;
    BatchBound bound(instance, 0.5, 0, {best - 0.5});
    Effort effort(2'000'000);
    bound.advance(effort, best, 0.0);
    CHECK(bound.done() || bound.lower() >= best);
    CHECK_NEAR(bound.lower(), best, 1e-6);
    ++closed;
  }
  CHECK(closed > 50);
}

TEST_MAIN()
