// The least cost of a batch by trying every partition of its items into micro-batches: slow and obvious.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "packing/brute_force.h"

namespace hetsp::packing {

// Sum of (makespan + fixed) over at most `most` micro-batches (0: any number); infinity where nothing fits.
inline double brute_force_batch(const Instance& instance, double fixed, int most = 0) {
  std::map<std::vector<std::int32_t>, double> known;
  const auto cost = [&](const std::vector<std::int32_t>& part) {
    const auto [at, fresh] = known.emplace(part, 0.0);
    if (fresh) {
      Instance alone = instance;
      alone.items.clear();
      for (const auto i : part) alone.items.push_back(instance.items[i]);
      at->second = brute_force_makespan(alone) + fixed;
    }
    return at->second;
  };
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::vector<std::int32_t>> parts;
  const std::function<void(std::size_t)> place = [&](std::size_t i) {
    if (i == instance.items.size()) {
      double sum = 0.0;
      for (const auto& part : parts) sum += cost(part);
      best = std::min(best, sum);
      return;
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      parts[p].push_back(static_cast<std::int32_t>(i));
      place(i + 1);
      parts[p].pop_back();
    }
    if (most > 0 && static_cast<int>(parts.size()) >= most) return;
    parts.push_back({static_cast<std::int32_t>(i)});
    place(i + 1);
    parts.pop_back();
  };
  place(0);
  return best;
}

}  // namespace hetsp::packing
