#include "hetsp/packing/batch_search.h"

#include <cmath>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "packing/batch_check.h"
#include "packing/corner_instance.h"
#include "support/check.h"

namespace {
using namespace hetsp::packing;
using hetsp::InvalidArgument;

// The least sum of makespans and fixed seconds over at most `most` micro-batches, from the optimum of every subset; negative:
// none.
double optimum(const Instance& instance, double fixed, int most) {
  const std::size_t subsets = std::size_t{1} << instance.items.size();
  std::vector<double> alone(subsets, -1.0);
  for (std::size_t mask = 1; mask < subsets; ++mask) {
    Instance part = instance;
    part.items.clear();
    for (std::size_t i = 0; i < instance.items.size(); ++i)
      if ((mask >> i & 1) != 0) part.items.push_back(instance.items[i]);
    alone[mask] = corner_instance::Optimum(part).makespan();
  }
  std::vector<double> best(subsets, -1.0);
  best[0] = 0.0;
  for (int k = 0; k < most; ++k) {
    std::vector<double> after = best;
    for (std::size_t mask = 1; mask < subsets; ++mask)
      for (std::size_t part = mask; part > 0; part = (part - 1) & mask) {
        if (alone[part] < 0.0 || best[mask ^ part] < 0.0) continue;
        const double sum = best[mask ^ part] + alone[part] + fixed;
        if (after[mask] < 0.0 || sum < after[mask]) after[mask] = sum;
      }
    best = after;
  }
  return best.back();
}

// A batch that needs about `micro_batches` of memory, log-normal lengths with a long tail.
Instance crawl(int items, int micro_batches, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> length(std::log(1600.0), 1.4);
  Instance made;
  made.ranks = 16;
  std::int64_t tokens = 0;
  for (int i = 0; i < items; ++i) {
    const auto s = std::min<std::int64_t>(60'000, 16 + static_cast<std::int64_t>(length(random)));
    made.items.push_back({s, static_cast<double>(s) * static_cast<double>(s)});
    tokens += s;
  }
  const std::int64_t each = std::max<std::int64_t>(60'000 / made.ranks + 1, tokens * 10 / 9 / micro_batches / made.ranks);
  for (int d = 1; d <= made.ranks; d *= 2)
    made.modes.push_back({d, d * each, 5e-9 / d, (1.8e-4 + (d == 1 ? 0.0 : 2e-5 * std::log2(d))) / d, 0.0});
  return made;
}
}  // namespace

TEST(finds_the_optimum_of_small_batches) {
  int packed = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = corner_instance::make(seed, 5, 6);
    const double fixed = seed % 3 == 0 ? 0.0 : 0.02 * static_cast<double>(seed % 7);
    const int count = 1 + static_cast<int>(seed % 3);
    const double truth = optimum(instance, fixed, count);
    BatchSearch search(instance, fixed, count, seed);
    CHECK(search.first().has_value() == (truth >= 0.0));
    if (!search.found()) continue;
    ++packed;
    Effort effort(1'500'000);
    search.improve(effort, truth * (1.0 + 1e-9));
    check_batch(instance, search.best());
    CHECK(static_cast<int>(search.best().size()) <= count);
    CHECK_NEAR(search.seconds(), truth, 1e-9 * truth);
  }
  CHECK(packed > 40);
}

TEST(a_batch_is_packed_better_than_the_sorted_cut) {
  for (const int count : {2, 4}) {
    const Instance instance = crawl(160, count, 3);
    BatchSearch search(instance, 0.3, 0, 1);
    CHECK(search.first().has_value());
    check_batch(instance, search.best());
    const double before = search.seconds();
    Effort effort(3'000'000);
    CHECK(search.improve(effort));
    check_batch(instance, search.best());
    double sum = 0.0;
    for (const Packing& packing : search.best()) sum += packing.makespan + 0.3;
    CHECK_NEAR(search.seconds(), sum, 1e-9);
    CHECK(search.seconds() < 0.98 * before);
  }
}

TEST(equal_arguments_give_equal_batches) {
  const Instance instance = crawl(100, 3, 4);
  double seconds[2];
  for (double& s : seconds) {
    BatchSearch search(instance, 0.3, 0, 9);
    Effort effort(500'000);
    search.improve(effort);
    s = search.seconds();
  }
  CHECK(seconds[0] == seconds[1]);
}

TEST(corners) {
  Instance instance{4, 0, {{1, 100, 1e-6, 1e-3, 0.0}}, {}};
  CHECK(BatchSearch(instance, 0.1, 0, 0).first()->empty());
  // Each item takes more than half of a rank's room: 4 per micro-batch, though the sum of tokens says fewer would do.
  instance.items.assign(17, {51, 2601.0});
  BatchSearch search(instance, 0.1, 0, 0);
  CHECK(search.first().has_value());
  check_batch(instance, search.best());
  CHECK(search.best().size() >= 5);
  Effort effort(500'000);
  search.improve(effort);
  check_batch(instance, search.best());
  CHECK(search.best().size() == 5);
  CHECK(!BatchSearch(instance, 0.1, 4, 0).first().has_value());
  instance.items.push_back({101, 1.0});
  CHECK(!BatchSearch(instance, 0.1, 0, 0).first().has_value());
  CHECK_THROWS(InvalidArgument, "fixed_seconds is -1", BatchSearch(instance, -1.0, 0, 0));
  CHECK_THROWS(InvalidArgument, "micro_batches is -2", BatchSearch(instance, 0.0, -2, 0));
}

TEST(an_offer_is_taken_where_it_is_better) {
  const Instance instance{1, 0, {{1, 100, 0.0, 1.0, 0.0}}, {{10, 0.0}, {20, 0.0}, {30, 0.0}}};
  BatchSearch search(instance, 5.0, 0, 0);
  search.offer({{{{0, {0}}}, 10.0}, {{{0, {2, 1}}}, 50.0}});
  CHECK(search.seconds() == 70.0);
  check_batch(instance, search.best());
  search.offer({{{{0, {0, 1, 2}}}, 60.0}});
  CHECK(search.seconds() == 65.0);
  CHECK_THROWS(InvalidArgument, "item 1 is in no micro-batch", search.offer({{{{0, {0}}}, 10.0}, {{{0, {2}}}, 30.0}}));
  CHECK_THROWS(InvalidArgument, "item 0 is in two bins", search.offer({{{{0, {0}}}, 10.0}, {{{0, {0}}}, 10.0}}));
  CHECK_THROWS(InvalidArgument, "makespan is 9", search.offer({{{{0, {0, 1, 2}}}, 9.0}}));
}

TEST_MAIN()
