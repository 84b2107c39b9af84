// Instances biased to corners: few ranks, equal items, exact fits, items of nothing, modes with equal ranks.
#pragma once

#include <algorithm>
#include <random>

#include "hetsp/packing/instance.h"

namespace hetsp::packing {

inline Instance random_instance(unsigned seed, int most_items = 7) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  Instance instance;
  instance.ranks = 1 + below(9);
  const int room = 5 + below(30);
  const double linear = 0.1 * below(12), quadratic = 0.01 * below(5), link = 0.05 * below(8), fixed = below(3) == 0 ? 0.3 : 0.0;
  const bool powers = below(2) == 0;
  for (int d = 1; d <= instance.ranks; d += powers ? d : 1)
    for (int kind = 0; kind <= (below(4) == 0); ++kind)
      instance.modes.push_back({d, static_cast<std::int64_t>(d) * room, quadratic / d * (kind ? 1.1 : 1.0),
                                (linear + (d > 1 ? link * (kind ? 0.8 : 1.0) : 0.0)) / d, fixed});
  const int count = below(most_items + 1), equal = below(4) == 0 ? 1 + below(20) : 0;
  for (int i = 0; i < count; ++i) {
    const int tokens = equal ? equal : below(5) == 0 ? 0 : 1 + below(below(3) ? room : room * std::min(instance.ranks, 4));
    instance.items.push_back({tokens, static_cast<double>(tokens) * tokens});
  }
  return instance;
}

}  // namespace hetsp::packing
