// The least makespan by trying every partition of the items and every mode of every part: slow and obvious.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "hetsp/packing/packing.h"

namespace hetsp::packing {

// Infinity where nothing fits.
inline double brute_force_makespan(const Instance& instance) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::vector<std::int32_t>> parts;
  // The modes of the parts: for given T, fewer ranks are better, so try each part's modes in turn.
  const std::function<void(std::size_t, double, std::vector<std::int32_t>&)> choose = [&](std::size_t p, double longest,
                                                                                          std::vector<std::int32_t>& ranks) {
    if (longest >= best || !places(instance, ranks)) return;
    if (p == parts.size()) {
      best = longest;
      return;
    }
    for (const Mode& mode : instance.modes) {
      std::int64_t tokens = 0;
      double seconds = 0.0;
      for (const auto i : parts[p]) tokens += instance.items[i].tokens, seconds += mode.seconds(instance.items[i]);
      if (tokens > mode.room) continue;
      ranks.push_back(mode.ranks);
      choose(p + 1, std::max(longest, seconds), ranks);
      ranks.pop_back();
    }
  };
  const std::function<void(std::size_t)> part = [&](std::size_t i) {
    if (i == instance.items.size()) {
      std::vector<std::int32_t> ranks;
      choose(0, 0.0, ranks);
      return;
    }
    for (std::size_t p = 0; p < parts.size(); ++p) {
      parts[p].push_back(static_cast<std::int32_t>(i));
      part(i + 1);
      parts[p].pop_back();
    }
    parts.push_back({static_cast<std::int32_t>(i)});
    part(i + 1);
    parts.pop_back();
  };
  part(0);
  return best;
}

}  // namespace hetsp::packing
