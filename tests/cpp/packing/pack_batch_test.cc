#include "hetsp/packing/pack_batch.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "hetsp/base/error.h"
#include "packing/brute_force_batch.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::packing;

namespace {

// Every item once over the micro-batches, each of which is a packing of its own items.
void check_batch(const Instance& instance, const CertifiedBatch& batch, double fixed) {
  std::vector<int> seen(instance.items.size());
  double sum = 0.0;
  for (const Packing& packing : batch.micro_batches) {
    std::vector<std::int32_t> ranks;
    CHECK(!packing.bins.empty());
    for (const Bin& bin : packing.bins) {
      std::int64_t tokens = 0;
      for (const auto i : bin.items) ++seen[i], tokens += instance.items[i].tokens;
      CHECK(tokens <= instance.modes[bin.mode].room);
      ranks.push_back(instance.modes[bin.mode].ranks);
    }
    CHECK(places(instance, ranks));
    sum += makespan(instance, packing.bins) + fixed;
  }
  CHECK(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }));
  CHECK_NEAR(batch.makespan, sum, 1e-9 * (1 + sum));
}

}  // namespace

TEST(bound_and_plan_enclose_the_best) {
  int solved = 0, found = 0;
  for (unsigned seed = 0; seed < 120; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 5);
    const double fixed = 0.5 * (seed % 4);
    const int most = seed % 3 == 0 ? 2 : 0;
    const double best = brute_force_batch(instance, fixed, most);
    try {
      const auto batch = pack_batch(instance, fixed, most, {.work = 300'000, .seed = seed});
      if (instance.items.empty()) continue;
      check_batch(instance, batch, fixed);
      CHECK(most == 0 || static_cast<int>(batch.micro_batches.size()) <= most);
      CHECK(batch.lower_bound <= best * (1 + 1e-9) && batch.makespan >= best * (1 - 1e-9));
      ++solved;
      found += batch.makespan <= best * (1 + 1e-6) + 1e-12;
    } catch (const PlanInfeasible&) {
      CHECK(std::isinf(best));
    }
  }
  CHECK(solved > 60);
  CHECK(found > solved * 9 / 10);
}

TEST(equal_arguments_equal_answers) {
  Instance instance = random_instance(177, 40);
  instance.ranks = 16, instance.modes = {{1, 40, 0.01, 0.2, 0.0}, {2, 80, 0.005, 0.15, 0.0}, {4, 160, 0.0025, 0.1, 0.0}};
  const auto a = pack_batch(instance, 1.0, 0, {.work = 600'000}), b = pack_batch(instance, 1.0, 0, {.work = 600'000});
  CHECK(a.makespan == b.makespan && a.lower_bound == b.lower_bound);
  check_batch(instance, a, 1.0);
}

TEST(bad_arguments) {
  const Instance instance{2, 0, {{1, 100, 0.0, 1.0, 0.0}}, {{90, 0.0}, {90, 0.0}, {90, 0.0}}};
  CHECK_THROWS(InvalidArgument, "fixed_seconds is -1", pack_batch(instance, -1.0));
  CHECK_THROWS(InvalidArgument, "micro_batches is -2", pack_batch(instance, 0.0, -2));
  CHECK_THROWS(PlanInfeasible, "2 ranks hold at most 200 in 1 micro-batch", pack_batch(instance, 0.0, 1));
  CHECK(pack_batch(instance, 0.0, 2).micro_batches.size() == 2);
}

TEST_MAIN()
