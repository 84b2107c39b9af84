#include "hetsp/packing/search.h"

#include <cmath>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "packing/corner_instance.h"
#include "support/check.h"

namespace {
using namespace hetsp::packing;
using corner_instance::Optimum;
using hetsp::InvalidArgument;

// 64 ranks, modes 1, 2, 4, ...; the longer the group, the more talk. Log-normal lengths, memory filled to `fill`.
Instance crawl(int items, int ranks, double fill, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> length(std::log(1600.0), 1.2);
  Instance made;
  made.ranks = ranks;
  std::int64_t tokens = 0;
  for (int i = 0; i < items; ++i) {
    const auto s = std::min<std::int64_t>(100'000, 16 + static_cast<std::int64_t>(length(random)));
    made.items.push_back({s, static_cast<double>(s) * static_cast<double>(s)});
    tokens += s;
  }
  const auto each = static_cast<std::int64_t>(static_cast<double>(tokens) / fill / ranks) + 1;
  for (int d = 1; d <= ranks; d *= 2)
    made.modes.push_back({d, d * each, 5e-9 / d, (1.8e-4 + (d == 1 ? 0.0 : 2e-5 * std::log2(d))) / d, 0.0});
  return made;
}
}  // namespace

TEST(finds_the_optimum_of_small_instances) {
  int packed = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = corner_instance::make(seed, 6, 8);
    const double optimum = Optimum(instance).makespan();
    Search search(instance, seed);
    const auto first = search.first();
    // None is claimed only where there is none.
    CHECK(first.has_value() == (optimum >= 0.0));
    if (!first) continue;
    ++packed;
    hetsp::packing::check(instance, *first);
    Effort effort(400'000);
    search.improve(effort, optimum * (1.0 + 1e-9));
    hetsp::packing::check(instance, search.best());
    CHECK(search.best().makespan <= optimum * (1.0 + 1e-9));
    CHECK(search.best().makespan >= optimum * (1.0 - 1e-9));
  }
  CHECK(packed > 100);
}

TEST(every_packing_of_larger_instances_is_one) {
  for (std::uint64_t seed = 1000; seed < 1100; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = corner_instance::make(seed, 60, 40);
    Search search(instance, seed);
    if (!search.first()) continue;
    hetsp::packing::check(instance, search.best());
    const double before = search.best().makespan;
    Effort effort(50'000);
    const bool better = search.improve(effort);
    hetsp::packing::check(instance, search.best());
    CHECK(better == (search.best().makespan < before));
    CHECK(search.best().makespan <= before);
  }
}

TEST(a_realistic_micro_batch_comes_near_its_area) {
  for (const int items : {100, 200, 800}) {
    check::context() = std::to_string(items) + " items";
    const Instance instance = crawl(items, 64, 0.8, 1);
    double area = 0.0, longest = 0.0;  // rank-seconds where no item is shared; the longest item on all ranks
    for (const Item& item : instance.items) {
      area += instance.modes.front().seconds(item);
      longest = std::max(longest, instance.modes.back().seconds(item));
    }
    const double bound = std::max(area / instance.ranks, longest);
    Search search(instance, 1);
    CHECK(search.first().has_value());
    Effort effort(3'000'000);
    search.improve(effort);
    hetsp::packing::check(instance, search.best());
    CHECK(search.best().makespan >= bound);
    CHECK(search.best().makespan <= 1.2 * bound);
  }
}

TEST(equal_arguments_give_equal_packings) {
  const Instance instance = crawl(100, 64, 0.9, 2);
  Packing packings[2];
  for (auto& packing : packings) {
    Search search(instance, 7);
    Effort effort(300'000);
    search.improve(effort);
    packing = search.best();
  }
  CHECK(packings[0].makespan == packings[1].makespan);
  CHECK(packings[0].bins.size() == packings[1].bins.size());
  for (std::size_t b = 0; b < packings[0].bins.size(); ++b) CHECK(packings[0].bins[b].items == packings[1].bins[b].items);
}

TEST(a_hundred_thousand_equal_items) {
  Instance instance{1000, 0, {{1, 1'000'000, 0.0, 1e-6, 0.0}, {2, 2'000'000, 0.0, 6e-7, 0.0}}, {}};
  instance.items.assign(100'000, {1000, 1e6});
  Search search(instance, 0);
  CHECK(search.first().has_value());
  Effort effort(20'000'000);
  search.improve(effort, 0.1 * (1.0 + 1e-9));
  hetsp::packing::check(instance, search.best());
  CHECK_NEAR(search.best().makespan, 0.1, 1e-9);  // 100 on each rank
}

TEST(memory_that_is_full_to_the_last_token) {
  Instance instance{8, 0, {}, {}};
  for (const int d : {1, 2, 4, 8}) instance.modes.push_back({d, 100 * d, 1e-6 / d, 1e-3 / d, 0.0});
  for (const std::int64_t s : {800 - 37 - 211 - 5, 37, 211, 5}) instance.items.push_back({s, static_cast<double>(s * s)});
  Search search(instance, 0);
  CHECK(search.first().has_value());
  hetsp::packing::check(instance, search.best());
  CHECK(search.best().bins.size() == 1);
  // Sets of 100 on one rank each, and no larger group to fall back on.
  instance.modes.resize(1);
  instance.items.clear();
  for (const std::int64_t s : {50, 60, 70, 80, 90, 99, 34, 33, 50, 40, 30, 20, 10, 1, 33, 100})
    instance.items.push_back({s, static_cast<double>(s * s)});
  Search tight(instance, 0);
  CHECK(tight.first().has_value());
  hetsp::packing::check(instance, tight.best());
}

TEST(what_cannot_be_packed_is_not) {
  Instance instance{4, 0, {{1, 100, 1e-6, 1e-3, 0.0}, {2, 200, 1e-6, 1e-3, 0.0}}, {{201, 1.0}}};
  CHECK(!Search(instance, 0).first().has_value());
  instance.items.assign(5, {100, 1.0});
  CHECK(!Search(instance, 0).first().has_value());
  instance.items.assign(4, {100, 1.0});
  CHECK(Search(instance, 0).first().has_value());
  instance.ranks = 0;
  CHECK_THROWS(InvalidArgument, "ranks is 0", Search(instance, 0));
}

TEST(nothing_and_items_that_cost_nothing) {
  Instance instance{4, 0, {{1, 0, 1e-6, 1e-3, 0.0}}, {}};
  CHECK(Search(instance, 0).first()->bins.empty());
  instance.items.assign(9, {0, 0.0});
  Search search(instance, 0);
  CHECK(search.first().has_value());
  hetsp::packing::check(instance, search.best());
  CHECK(search.best().makespan == 0.0);
}

TEST(an_offer_is_taken_where_it_is_better) {
  const Instance instance{2, 0, {{1, 100, 0.0, 1.0, 0.0}}, {{10, 0.0}, {20, 0.0}, {30, 0.0}}};
  Search search(instance, 0);
  search.offer({{{0, {0, 1, 2}}}, 60.0});
  CHECK(search.best().makespan == 60.0);
  search.offer({{{0, {0, 1}}, {0, {2}}}, 30.0});
  CHECK(search.best().makespan == 30.0);
  search.offer({{{0, {0, 1, 2}}}, 60.0});
  CHECK(search.best().makespan == 30.0);
  CHECK_THROWS(InvalidArgument, "item 2 is in no bin", search.offer({{{0, {0, 1}}}, 30.0}));
}

TEST_MAIN()
