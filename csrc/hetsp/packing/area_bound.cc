#include "hetsp/packing/area_bound.h"

#include <algorithm>
#include <limits>
#include <tuple>

namespace hetsp::packing {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
}

AreaBound::AreaBound(const Instance& instance, const ItemTypes& types) : ranks_(instance.ranks) {
  std::vector<Option> options;
  for (int i = 0; i < types.size(); ++i) {
    const Item& item = types.item[i];
    options.clear();
    for (const Mode& mode : instance.modes) {
      if (mode.room < item.tokens) continue;
      const double seconds = mode.seconds(item);
      options.push_back({seconds, mode.ranks * seconds});
    }
    const auto cheaper = [](const Option& a, const Option& b) {
      return std::tie(a.area, a.seconds) < std::tie(b.area, b.seconds);
    };
    if (!std::is_sorted(options.begin(), options.end(), cheaper)) std::sort(options.begin(), options.end(), cheaper);
    auto& kept = options_.emplace_back();
    for (const Option& option : options)
      if (kept.empty() || option.seconds < kept.back().seconds) kept.push_back(option);
    shortest_.push_back(kept.empty() ? kInfinity : kept.back().seconds);
    count_.push_back(types.count[i]);
  }
}

double AreaBound::area(double T) const {
  double sum = 0.0;
  for (std::size_t i = 0; i < options_.size(); ++i) {
    if (shortest_[i] > T) return kInfinity;
    const Option* option = options_[i].data();
    while (option->seconds > T) ++option;
    sum += count_[i] * option->area;
  }
  return sum;
}

double AreaBound::makespan() const {
  double low = 0.0, high = 0.0;
  for (const double seconds : shortest_) low = std::max(low, seconds);
  if (low == kInfinity) return kInfinity;
  high = std::max(low, area(low) / ranks_);  // the area never rises with T
  if (!refutes(low)) return low * (1.0 - 1e-9);
  while (high - low > 1e-10 * high) {
    const double middle = 0.5 * (low + high);
    (refutes(middle) ? low : high) = middle;
  }
  return low * (1.0 - 1e-9);
}

}  // namespace hetsp::packing
