#include "hetsp/packing/sorted_cut.h"

#include <algorithm>
#include <random>
#include <string>

#include "support/check.h"

namespace {
using namespace hetsp::packing;

// The least largest part over all consecutive cuts: dynamic programming over ends and parts.
std::int64_t least_largest(const std::vector<Item>& items, int parts) {
  const std::size_t n = items.size();
  std::vector<std::int64_t> best(n + 1, std::int64_t{1} << 60);
  best[0] = 0;
  for (int p = 0; p < parts; ++p) {
    std::vector<std::int64_t> after = best;
    for (std::size_t end = 1; end <= n; ++end) {
      std::int64_t tokens = 0;
      for (std::size_t begin = end; begin-- > 0;) {
        tokens += items[begin].tokens;
        after[end] = std::min(after[end], std::max(best[begin], tokens));
      }
    }
    best = after;
  }
  return best[n];
}
}  // namespace

TEST(the_largest_part_is_least) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::mt19937_64 random(seed);
    Instance instance{1, 0, {{1, 1, 0.0, 1.0, 0.0}}, {}};
    const auto items = random() % 20;
    for (std::size_t i = 0; i < items; ++i)
      instance.items.push_back({static_cast<std::int64_t>(random() % 3 == 0 ? 0 : random() % 50), 0.0});
    std::sort(instance.items.begin(), instance.items.end(), [](const Item& a, const Item& b) { return a.tokens > b.tokens; });
    const int parts = 1 + static_cast<int>(random() % 6);
    check::context() = "seed " + std::to_string(seed);
    const auto ends = sorted_cut(instance, parts);
    CHECK(ends.size() == static_cast<std::size_t>(parts));
    CHECK(ends.back() == static_cast<std::int32_t>(items));
    std::int64_t largest = 0;
    std::int32_t begin = 0;
    for (const auto end : ends) {
      CHECK(begin <= end);
      std::int64_t tokens = 0;
      for (; begin < end; ++begin) tokens += instance.items[begin].tokens;
      largest = std::max(largest, tokens);
    }
    CHECK(largest == (items == 0 ? 0 : least_largest(instance.items, parts)));
  }
}

TEST_MAIN()
