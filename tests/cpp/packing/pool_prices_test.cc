#include "hetsp/packing/pool_prices.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "hetsp/lp/simplex.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

namespace {

// A few pools over the modes of an instance, with makespans from too short to ample.
std::vector<PoolPrices::Pool> random_pools(const Instance& instance, unsigned seed) {
  std::mt19937 random(seed + 77);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  double longest = 0.0;
  for (const Item& item : instance.items) longest = std::max(longest, instance.modes[0].seconds(item));
  std::vector<PoolPrices::Pool> pools(1 + below(3));
  for (auto& pool : pools) {
    pool.ranks = 1 + below(2 * instance.ranks);
    const double T = longest * 0.25 * (1 + below(8));
    for (std::size_t k = 0; k < instance.modes.size(); ++k)
      if (pool.slots.empty() || below(5) > 0)
        pool.slots.push_back({static_cast<std::int32_t>(k), static_cast<double>(instance.modes[k].ranks), T,
                              static_cast<double>(instance.modes[k].room)});
  }
  return pools;
}

// The least multiple of their ranks with which the pools hold the items cut into parts; infinity where one fits nowhere.
double fluid(const Instance& instance, const std::vector<double>& count, const std::vector<PoolPrices::Pool>& pools) {
  namespace lp = hetsp::lp;
  lp::Model model;
  for (const double n : count) model.add_row(n, lp::kInfinity);
  const auto row_of_pool = [&](std::size_t p) { return static_cast<std::int32_t>(count.size() + p); };
  for (std::size_t p = 0; p < pools.size(); ++p) model.add_row(-lp::kInfinity, 0.0);
  auto next = static_cast<std::int32_t>(count.size() + pools.size());
  for (const auto& pool : pools)
    for (std::size_t k = 0; k < pool.slots.size(); ++k) model.add_row(-lp::kInfinity, 0.0), model.add_row(-lp::kInfinity, 0.0);
  std::vector<lp::Entry> all;
  for (std::size_t p = 0; p < pools.size(); ++p) all.push_back({row_of_pool(p), -pools[p].ranks});
  model.add_column(1.0, 0.0, lp::kInfinity, all);
  for (std::size_t p = 0; p < pools.size(); ++p)
    for (const auto& slot : pools[p].slots) {
      const lp::Entry groups[] = {{row_of_pool(p), slot.ranks}, {next, -slot.seconds}, {next + 1, -slot.tokens}};
      model.add_column(0.0, 0.0, lp::kInfinity, groups);
      for (std::size_t i = 0; i < count.size(); ++i) {
        const Item& item = instance.items[i];
        const double t = instance.modes[slot.mode].seconds(item), s = static_cast<double>(item.tokens);
        if (t > slot.seconds * (1 + 1e-12) || s > slot.tokens) continue;
        const lp::Entry part[] = {{static_cast<std::int32_t>(i), 1.0}, {next, t}, {next + 1, s}};
        model.add_column(0.0, 0.0, lp::kInfinity, part);
      }
      next += 2;
    }
  lp::Simplex simplex(model);
  const auto status = simplex.solve();
  return status == lp::Status::optimal ? simplex.objective() : lp::kInfinity;
}

}  // namespace

TEST(never_above_the_fluid_lp_and_mostly_near) {
  int solved = 0, near = 0, nowhere = 0;
  for (unsigned seed = 0; seed < 1000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 9);
    if (instance.items.empty()) continue;
    std::vector<double> count;
    for (std::size_t i = 0; i < instance.items.size(); ++i) count.push_back(static_cast<double>((seed + i) % 4));
    const auto pools = random_pools(instance, seed);
    PoolPrices prices(instance.modes, instance.items, count);
    Effort effort;
    const double ratio = prices.ascend(pools, effort), best = fluid(instance, count, pools);
    if (std::isinf(ratio)) {
      const auto& pi = prices.prices();
      const auto at = std::find(pi.begin(), pi.end(), 1.0) - pi.begin();
      CHECK(at < std::ssize(pi));
      for (const auto& pool : pools)
        for (const auto& slot : pool.slots)
          CHECK(instance.modes[slot.mode].seconds(instance.items[at]) > slot.seconds ||
                static_cast<double>(instance.items[at].tokens) > slot.tokens);
      ++nowhere;
      continue;
    }
    CHECK(std::isfinite(best));
    CHECK(ratio <= best * (1 + 1e-7) + 1e-9);
    ++solved;
    near += ratio >= 0.97 * best - 1e-9;
  }
  CHECK(solved > 300 && nowhere > 50);
  CHECK(near > solved * 19 / 20);
}

TEST(worth_is_the_best_mixture) {
  int valued = 0;
  for (unsigned seed = 0; seed < 1000; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    const Instance instance = random_instance(seed, 9);
    if (instance.items.empty()) continue;
    std::mt19937 random(seed);
    const std::vector<double> count(instance.items.size(), 1e6);  // so many that their sum does not bound
    std::vector<double> pi, seconds, worth;
    for (std::size_t i = 0; i < count.size(); ++i)
      pi.push_back(random() % 4 == 0 ? 0.0 : 0.1 * static_cast<double>(random() % 20));
    const int mode = static_cast<int>(seed % instance.modes.size());
    const double tokens = static_cast<double>(instance.modes[mode].room);
    for (double T = 0.0; T < 6.0; T += 0.05 + 0.1 * static_cast<double>(random() % 4)) seconds.push_back(T);
    PoolPrices prices(instance.modes, instance.items, count);
    prices.worth(pi, mode, tokens, seconds, worth);
    for (std::size_t g = 0; g < seconds.size(); ++g) {
      double least = 1e300;
      for (int step = 0; step <= 4000; ++step) {
        const double m = step / 4000.0;
        double most = 0.0;
        for (std::size_t i = 0; i < count.size(); ++i) {
          const double t = instance.modes[mode].seconds(instance.items[i]), s = static_cast<double>(instance.items[i].tokens);
          if (t > seconds[g] * (1 + 1e-12) || s > tokens || pi[i] <= 0.0) continue;
          const double weight = (seconds[g] > 0.0 ? (1 - m) * t / seconds[g] : 0.0) + m * s / tokens;
          most = std::max(most, weight > 0.0 ? pi[i] / weight : 1e300);
        }
        least = std::min(least, most);
      }
      if (least >= 1e300) continue;  // items of nothing: only their number bounds them
      CHECK(worth[g] <= least * (1 + 1e-9));
      CHECK(worth[g] >= least * (1 - 2e-3));
      ++valued;
    }
  }
  CHECK(valued > 5000);
}

TEST(worth_of_few_items_is_their_sum) {
  const std::vector<Mode> modes{{1, 100, 0.0, 1.0, 0.0}};
  PoolPrices prices(modes, {{10, 100.0}, {0, 0.0}}, {2.0, 3.0});
  std::vector<double> worth;
  prices.worth({5.0, 1.0}, 0, 100.0, {0.0, 9.0, 10.0, 30.0}, worth);
  CHECK_NEAR(worth[0], 3.0, 1e-12);  // items of nothing fit always
  CHECK_NEAR(worth[1], 3.0, 1e-12);
  CHECK_NEAR(worth[3], 13.0, 1e-12);
}

TEST_MAIN()
