#include "hetsp/packing/order.h"

#include <algorithm>
#include <numeric>

namespace hetsp::packing {

Order::Order(const Instance& instance_given)
    : given(instance_given), instance(given), original(given.items.size()), place(given.items.size()) {
  check(given);
  std::iota(original.begin(), original.end(), 0);
  std::vector<double> seconds(given.items.size());
  for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] = given.modes.front().seconds(given.items[i]);
  std::stable_sort(original.begin(), original.end(), [&](std::int32_t a, std::int32_t b) {
    return seconds[a] != seconds[b] ? seconds[a] > seconds[b] : given.items[a].tokens > given.items[b].tokens;
  });
  for (std::size_t j = 0; j < original.size(); ++j) {
    instance.items[j] = given.items[original[j]];
    place[original[j]] = static_cast<std::int32_t>(j);
  }
}

Packing Order::to_original(const Packing& packing) const {
  Packing made = packing;
  for (Bin& bin : made.bins) {
    for (auto& i : bin.items) i = original[i];
    std::sort(bin.items.begin(), bin.items.end());
  }
  std::stable_sort(made.bins.begin(), made.bins.end(),
                   [&](const Bin& a, const Bin& b) { return instance.modes[a.mode].ranks > instance.modes[b.mode].ranks; });
  return made;
}

Packing Order::to_ordered(const Packing& packing) const {
  Packing made = packing;
  for (Bin& bin : made.bins)
    for (auto& i : bin.items) i = place[i];
  return made;
}

double total_tokens(const Instance& instance) {
  double sum = 0.0;
  for (const Item& item : instance.items) sum += static_cast<double>(item.tokens);
  return sum;
}

double most_room(const Instance& instance) {
  double most = 0.0;
  for (const Mode& mode : instance.modes) most = std::max(most, static_cast<double>(mode.room) * instance.ranks / mode.ranks);
  return most;
}

}  // namespace hetsp::packing
