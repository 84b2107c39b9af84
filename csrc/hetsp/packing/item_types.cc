#include "hetsp/packing/item_types.h"

#include <algorithm>
#include <numeric>

namespace hetsp::packing {

ItemTypes make_types(const std::vector<Item>& items, double width) {
  std::vector<std::int32_t> order(items.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return items[a].pairs != items[b].pairs ? items[a].pairs > items[b].pairs : items[a].tokens > items[b].tokens;
  });
  ItemTypes types;
  for (const auto i : order) {
    const Item& item = items[i];
    bool joins = !types.item.empty();
    if (joins) {
      Item &least = types.item.back(), &most = types.largest.back();
      const Item low{std::min(least.tokens, item.tokens), item.pairs}, high{std::max(most.tokens, item.tokens), most.pairs};
      joins = high.pairs <= (1.0 + width) * (1.0 + width) * low.pairs &&
              static_cast<double>(high.tokens) <= (1.0 + width) * static_cast<double>(low.tokens);
      if (joins) least = low, most = high;
    }
    if (!joins)
      types.item.push_back(item), types.largest.push_back(item), types.count.push_back(0), types.members.emplace_back();
    ++types.count.back();
    types.members.back().push_back(i);
  }
  return types;
}

}  // namespace hetsp::packing
