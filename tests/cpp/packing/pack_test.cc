#include "hetsp/packing/pack.h"

#include <atomic>
#include <cmath>
#include <string>
#include <tuple>

#include "hetsp/base/error.h"
#include "packing/brute_force.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::packing;

TEST(bound_and_packing_enclose_the_best) {
  int solved = 0, closed = 0, found = 0;
  for (unsigned seed = 0; seed < 400; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed, 7);
    if (seed % 4 == 0) instance.ranks_per_node = 3;
    const double best = brute_force_makespan(instance);
    try {
      const Certified result = pack(instance, {.work = 200'000, .seed = seed});
      hetsp::packing::check(instance, result.packing);
      CHECK(result.lower_bound <= best * (1 + 1e-12));
      CHECK(result.packing.makespan >= best * (1 - 1e-12));
      ++solved;
      found += result.packing.makespan <= best * (1 + 1e-6) + 1e-12;
      closed += result.packing.makespan <= result.lower_bound * 1.01 + 1e-12;
    } catch (const PlanInfeasible&) {
      CHECK(std::isinf(best));
    }
  }
  CHECK(solved > 200);
  CHECK(found > solved * 98 / 100);
  CHECK(closed > solved / 2);
}

TEST(equal_arguments_equal_answers) {
  for (unsigned seed = 0; seed < 6; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed + 77, 40);
    instance.ranks = 24,
    instance.modes = {
        {1, 60, 0.01, 0.2, 0.0}, {2, 120, 0.005, 0.15, 0.0}, {4, 240, 0.0025, 0.1, 0.0}, {8, 480, 0.00125, 0.08, 0.0}};
    const auto a = pack(instance, {.work = 400'000, .seed = 5}), b = pack(instance, {.work = 400'000, .seed = 5});
    CHECK(a.packing.makespan == b.packing.makespan && a.lower_bound == b.lower_bound &&
          a.packing.bins.size() == b.packing.bins.size());
    for (std::size_t i = 0; i < a.packing.bins.size(); ++i)
      CHECK(a.packing.bins[i].mode == b.packing.bins[i].mode && a.packing.bins[i].items == b.packing.bins[i].items);
  }
}

TEST(few_items_are_packed_optimally) {
  int packed = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Instance instance = random_instance(seed, 7);
    while (instance.items.size() < 11)
      instance.items.push_back({static_cast<std::int64_t>(seed % 7 + instance.items.size()), 1.0});
    instance.ranks += 6;
    try {
      const auto certified = pack(instance);
      CHECK(certified.status == "optimal");
      ++packed;
    } catch (const hetsp::PlanInfeasible&) {
    }
  }
  CHECK(packed > 30);
}

TEST(corners) {
  const Mode one{1, 100, 0.0, 1.0, 0.0}, two{2, 200, 0.0, 0.6, 0.0};
  CHECK(pack({2, 0, {one, two}, {}}).packing.makespan == 0.0);
  const auto single = pack({2, 0, {one, two}, {{90, 0.0}}});
  CHECK_NEAR(single.packing.makespan, 54.0, 1e-9);
  CHECK(single.status == "optimal");
  const auto nothing = pack({2, 0, {one, two}, {{0, 0.0}, {0, 0.0}}});  // items that take no time at all
  CHECK(nothing.packing.makespan == 0.0);
  CHECK_THROWS(PlanInfeasible, "sequence 1 has 201 tokens; the largest group holds 200",
               pack({2, 0, {one, two}, {{1, 0.0}, {201, 0.0}}}));
  CHECK_THROWS(PlanInfeasible, "2 ranks hold at most 200 in 1 micro-batch",
               pack({2, 0, {one, two}, {{90, 0.0}, {90, 0.0}, {90, 0.0}}}));
  const auto full = pack({2, 0, {one, two}, {{60, 0.0}, {40, 0.0}, {70, 0.0}, {30, 0.0}}});  // memory exactly full
  CHECK_NEAR(full.packing.makespan, 100.0, 1e-9);
  std::vector<Item> equal(100'000, Item{3, 9.0});
  const auto many = pack({1000, 0, {{1, 400, 0.0, 1.0, 0.0}, {2, 800, 0.0, 0.6, 0.0}}, equal}, {.work = 1'000'000});
  CHECK_NEAR(many.packing.makespan, 300.0, 1e-9);
  CHECK(many.lower_bound > 299.0);
}

TEST(stops_when_told) {
  Instance instance = random_instance(5, 40);
  for (Mode& mode : instance.modes) mode.room = 1000;
  const std::atomic<bool> stop = true;
  const auto result = pack(instance, {.cancel = &stop});
  hetsp::packing::check(instance, result.packing);
}

TEST_MAIN()
