#include "hetsp/simulator/fair_share.h"

#include <algorithm>
#include <limits>
#include <unordered_map>

namespace hetsp::simulator {

std::vector<double> fair_rates(std::span<const double> capacities, std::span<const Bundle* const> bundles) {
  struct Link {
    double left;    // capacity that no settled bundle takes
    double weight;  // of the rising bundles
  };
  std::unordered_map<int, Link> links;
  for (const Bundle* bundle : bundles) {
    for (const auto& use : bundle->uses)
      links.try_emplace(use.resource, Link{capacities[use.resource], 0.0}).first->second.weight += use.weight;
  }
  std::vector<double> rates(bundles.size(), std::numeric_limits<double>::infinity());
  std::vector<std::size_t> rising;
  for (std::size_t i = 0; i < bundles.size(); ++i) {
    if (!bundles[i]->uses.empty()) rising.push_back(i);
  }
  while (!rising.empty()) {
    double level = std::numeric_limits<double>::infinity();
    std::vector<double> limits(rising.size());
    for (std::size_t i = 0; i < rising.size(); ++i) {
      double limit = std::numeric_limits<double>::infinity();
      for (const auto& use : bundles[rising[i]]->uses) {
        const Link& link = links[use.resource];
        limit = std::min(limit, link.left / link.weight);
      }
      limits[i] = limit;
      level = std::min(level, limit);
    }
    std::vector<std::size_t> still;
    for (std::size_t i = 0; i < rising.size(); ++i) {
      if (limits[i] > level * (1.0 + 1e-12)) {
        still.push_back(rising[i]);
        continue;
      }
      rates[rising[i]] = level;
    }
    for (std::size_t i = 0; i < rising.size(); ++i) {
      if (limits[i] > level * (1.0 + 1e-12)) continue;
      for (const auto& use : bundles[rising[i]]->uses) {
        Link& link = links[use.resource];
        link.left = std::max(0.0, link.left - use.weight * level);
        link.weight -= use.weight;
      }
    }
    rising = std::move(still);
  }
  return rates;
}

}  // namespace hetsp::simulator
