// Equal items as one type with a count: the rows of the configuration LP, the items of its pricing.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/instance.h"

namespace hetsp::packing {

// A partition of an instance's items. The representative is the least of its members in tokens and in pairs; since no mode's
// seconds fall with either, a bound for the representatives is a bound for the items.
struct ItemTypes {
  std::vector<Item> item;                          // [types] representatives, by falling pairs, then tokens
  std::vector<Item> largest;                       // [types] the most tokens and the most pairs of its members: for plans
  std::vector<std::int32_t> count;                 // [types]
  std::vector<std::vector<std::int32_t>> members;  // [types][count] indices into Instance::items

  [[nodiscard]] int size() const { return static_cast<int>(item.size()); }
};

// Types of equal items (width 0), or of items whose tokens and pairs differ by at most a factor of 1 + width each.
[[nodiscard]] ItemTypes make_types(const std::vector<Item>& items, double width = 0.0);

}  // namespace hetsp::packing
