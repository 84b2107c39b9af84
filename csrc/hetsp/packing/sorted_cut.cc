#include "hetsp/packing/sorted_cut.h"

#include <algorithm>

namespace hetsp::packing {

namespace {
// Fills parts in turn up to `limit` tokens; more parts than asked for mean that the limit is too small.
std::vector<std::int32_t> fill(const Instance& instance, std::int64_t limit) {
  std::vector<std::int32_t> ends;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < instance.items.size(); ++i) {
    if (i > 0 && tokens + instance.items[i].tokens > limit) {
      ends.push_back(static_cast<std::int32_t>(i));
      tokens = 0;
    }
    tokens += instance.items[i].tokens;
  }
  ends.push_back(static_cast<std::int32_t>(instance.items.size()));
  return ends;
}
}  // namespace

std::vector<std::int32_t> sorted_cut(const Instance& instance, int parts) {
  std::int64_t low = 0, high = 0;  // of the largest part's tokens: too small, enough
  for (const Item& item : instance.items) {
    low = std::max(low, item.tokens - 1);
    high += item.tokens;
  }
  high = std::max(high, low + 1);
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (fill(instance, middle).size() <= static_cast<std::size_t>(parts) ? high : low) = middle;
  }
  auto ends = fill(instance, high);
  ends.resize(parts, ends.back());
  return ends;
}

}  // namespace hetsp::packing
