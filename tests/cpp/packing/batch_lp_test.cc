#include "hetsp/packing/batch_lp.h"

#include <cmath>
#include <random>
#include <string>

#include "hetsp/packing/item_types.h"
#include "packing/brute_force_batch.h"
#include "packing/random_instance.h"
#include "support/check.h"

using namespace hetsp::packing;

namespace {

// Whether the items can be put into micro-batches of these makespans, by trying every partition.
bool holds(const Instance& instance, const std::vector<double>& makespans) {
  std::vector<std::vector<std::int32_t>> parts(makespans.size());
  const std::function<bool(std::size_t)> place = [&](std::size_t i) {
    if (i == instance.items.size()) {
      for (std::size_t p = 0; p < parts.size(); ++p) {
        Instance alone = instance;
        alone.items.clear();
        for (const auto k : parts[p]) alone.items.push_back(instance.items[k]);
        if (brute_force_makespan(alone) > makespans[p] * (1 + 1e-12)) return false;
      }
      return true;
    }
    for (auto& part : parts) {
      part.push_back(static_cast<std::int32_t>(i));
      if (place(i + 1)) return true;
      part.pop_back();
    }
    return false;
  };
  return place(0);
}

}  // namespace

TEST(what_holds_is_never_refuted_and_little_else_is_feasible) {
  int held = 0, refuted = 0, missed = 0;
  for (unsigned seed = 0; seed < 250; ++seed) {
    const Instance instance = random_instance(seed, 5);
    if (instance.items.empty()) continue;
    const ItemTypes types = make_types(instance.items);
    const std::vector<double> levels{0.5, 1.0, 2.0, 4.0, 8.0, 16.0};
    BatchLp lp(instance, types.item, types.count, levels);  // one for all choices
    std::mt19937 random(seed);
    for (int trial = 0; trial < 5; ++trial) {
      check::context() = "seed " + std::to_string(seed) + " trial " + std::to_string(trial);
      std::vector<int> y(levels.size(), 0);
      std::vector<double> makespans;
      for (int m = 1 + static_cast<int>(random() % 3); m > 0; --m) {
        const auto g = random() % levels.size();
        ++y[g], makespans.push_back(levels[g]);
      }
      Effort effort;
      const auto verdict = lp.solve(y, effort, 1 << 20);
      const bool can = holds(instance, makespans);
      held += can;
      if (can) CHECK(verdict == BatchLp::Verdict::feasible);
      if (verdict != BatchLp::Verdict::refuted) {
        missed += !can;
        continue;
      }
      ++refuted;
      if (lp.multipliers().empty()) continue;
      double worth = 0.0, earned = 0.0;
      for (int i = 0; i < types.size(); ++i) worth += lp.multipliers()[i] * types.count[i];
      for (std::size_t g = 0; g < levels.size(); ++g)
        if (y[g] > 0) earned += y[g] * instance.ranks * lp.profit_per_rank(lp.multipliers(), levels[g], 1 << 20, effort);
      CHECK(worth > earned * (1 - 1e-7));
    }
  }
  CHECK(held > 200 && refuted > 200);
  CHECK(missed < refuted / 3);
}

TEST_MAIN()
