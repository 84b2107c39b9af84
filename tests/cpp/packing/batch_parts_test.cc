#include "hetsp/packing/batch_parts.h"

#include <random>
#include <string>

#include "hetsp/packing/batch_search.h"
#include "hetsp/packing/order.h"
#include "packing/batch_check.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

namespace {

// Many items of an instance's kind, by falling size.
Instance many(unsigned seed) {
  Instance instance = random_instance(seed, 7);
  std::mt19937 random(seed);
  const auto room = static_cast<unsigned>(instance.modes.back().room);
  instance.items.clear();
  for (unsigned i = 0; i < 150 + random() % 100; ++i) {
    const auto tokens = static_cast<std::int64_t>(random() % 3 == 0 ? 1 + random() % room : 1 + random() % (room / 4 + 1));
    instance.items.push_back({tokens, static_cast<double>(tokens * tokens)});
  }
  return Order(instance).instance;
}

double cost(const std::vector<Packing>& packings, double fixed) {
  double sum = 0.0;
  for (const Packing& packing : packings) sum += packing.makespan + fixed;
  return sum;
}

}  // namespace

TEST(deals_and_improves_whole_batches) {
  int dealt = 0, better = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = many(seed);
    const double fixed = 0.1 * (seed % 3);
    BatchParts parts(instance, fixed, seed);
    Effort effort(3'000'000);
    auto batch = parts.deal(static_cast<int>(8 + seed % 20), effort);
    if (!batch) continue;
    ++dealt;
    check_batch(instance, *batch);
    for (int step = 0; step < 5; ++step) {
      const double before = cost(*batch, fixed);
      const auto micro_batches = batch->size();
      const bool improved = parts.improve(*batch, effort);
      CHECK(improved ? cost(*batch, fixed) < before : cost(*batch, fixed) <= before * (1 + 1e-12));
      CHECK(batch->size() <= micro_batches);
      better += improved;
      check_batch(instance, *batch);
    }
  }
  CHECK(dealt > 20 && better > 20);
}

TEST(a_search_of_many_micro_batches_plans_parts) {
  int larger = 0;
  for (unsigned seed = 0; seed < 20; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = many(seed);
    BatchSearch search(instance, 0.2, 0, seed), again(instance, 0.2, 0, seed);
    if (!search.first()) continue;
    const double first = search.seconds();
    larger += search.best().size() >= 16;
    Effort effort(4'000'000), same(4'000'000);
    search.improve(effort);
    again.improve(same);
    CHECK(search.seconds() <= first && search.seconds() == again.seconds());
    CHECK_NEAR(cost(search.best(), 0.2), search.seconds(), 1e-6 * search.seconds());
    check_batch(instance, search.best());
  }
  CHECK(larger > 5);
}

TEST(spent_effort_leaves_a_plan) {
  const Instance instance = many(3);
  BatchParts parts(instance, 0.0, 0);
  Effort spent(1);
  spent.spend(1);
  if (auto batch = parts.deal(20, spent)) check_batch(instance, *batch);
}

TEST_MAIN()
