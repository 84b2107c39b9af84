#include "hetsp/attention/cpu/components.h"

#include <algorithm>
#include <numeric>

namespace hetsp::attention::cpu {

namespace {

// Disjoint sets with path halving (Tarjan, van Leeuwen, J. ACM 31 (1984)); the least member of a set is its root.
class DisjointSets {
 public:
  explicit DisjointSets(std::int64_t count) : parent_(static_cast<std::size_t>(count)) {
    std::iota(parent_.begin(), parent_.end(), std::int64_t{0});
  }
  std::int64_t root(std::int64_t x) {
    while (parent(x) != x) x = parent(x) = parent(parent(x));
    return x;
  }
  void join(std::int64_t a, std::int64_t b) {
    a = root(a), b = root(b);
    parent(std::max(a, b)) = std::min(a, b);
  }

 private:
  std::int64_t& parent(std::int64_t x) { return parent_[static_cast<std::size_t>(x)]; }
  std::vector<std::int64_t> parent_;
};

bool is_empty(const Segment& s) { return s.q_begin >= s.q_end || s.k_begin >= s.k_end; }

// Joins whatever overlaps along one axis. In the order of their begins, a segment overlaps one of those before it iff it begins
// before the end of the one that reaches farthest.
template <class Rows>
void join_along(const Segment* segments, std::vector<std::int64_t>& order, DisjointSets& sets, const Rows& rows) {
  const auto begin = [&](std::int64_t index) { return rows(segments[index]).begin; };
  std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return begin(a) < begin(b); });
  std::int64_t farthest = -1;
  for (const std::int64_t index : order) {
    if (farthest >= 0 && begin(index) < rows(segments[farthest]).end) sets.join(farthest, index);
    if (farthest < 0 || rows(segments[index]).end > rows(segments[farthest]).end) farthest = index;
  }
}

}  // namespace

Components components(const Segment* segments, std::int64_t count) {
  DisjointSets sets(count);
  std::vector<std::int64_t> order;
  order.reserve(static_cast<std::size_t>(count));
  for (std::int64_t index = 0; index < count; ++index)
    if (!is_empty(segments[index])) order.push_back(index);
  join_along(segments, order, sets, [](const Segment& s) { return RowRange{s.q_begin, s.q_end}; });
  join_along(segments, order, sets, [](const Segment& s) { return RowRange{s.k_begin, s.k_end}; });

  Components result;
  result.of_segment.assign(static_cast<std::size_t>(count), -1);
  for (std::int64_t index = 0; index < count; ++index) {
    if (is_empty(segments[index])) continue;
    const std::int64_t root = sets.root(index);  // <= index, so numbered by now
    result.of_segment[index] = root == index ? result.count++ : result.of_segment[root];
  }
  return result;
}

}  // namespace hetsp::attention::cpu
