// Random packing instances, biased to corners: zero tokens, equal items, full memory, modes of one number of ranks, nodes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

#include "hetsp/packing/packing.h"

namespace corner_instance {

using hetsp::packing::Instance;
using hetsp::packing::Item;

// At most `most_items` items on at most `most_ranks` ranks.
inline Instance make(std::uint64_t seed, int most_items, int most_ranks) {
  std::mt19937_64 random(seed);
  const auto below = [&](std::int64_t count) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(count));
  };
  Instance made;
  made.ranks = static_cast<std::int32_t>(1 + below(most_ranks));
  made.ranks_per_node = below(3) == 0 ? static_cast<std::int32_t>(1 + below(4)) : 0;
  const std::int64_t room = 1 + below(100);
  const double per_pair = below(4) == 0 ? 0.0 : 1e-3, per_token = below(6) == 0 ? 0.0 : 1e-2;
  for (std::int32_t d = 1; d <= made.ranks; ++d) {
    if (below(4) == 0 && !(d == made.ranks && made.modes.empty())) continue;
    const double talk = d == 1 ? 0.0 : 1e-3 * static_cast<double>(below(10));
    made.modes.push_back({d, room * d, per_pair / d, per_token / d + talk, below(2) == 0 ? 0.0 : 1e-2 * d});
    if (below(4) == 0) made.modes.push_back({d, room * d / 2, per_pair / d, per_token / d, 0.0});  // faster, less room
  }
  const std::int64_t items = below(most_items + 1), longest = 1 + below(2 * room);
  for (std::int64_t i = 0; i < items; ++i) {
    const std::int64_t s = below(5) == 0 ? 0 : below(3) == 0 ? longest : below(longest + 1);
    made.items.push_back({s, static_cast<double>(s) * static_cast<double>(s) * (below(3) == 0 ? 0.5 : 1.0)});
  }
  return made;
}

// The least makespan of all packings, by trying every partition of the items and every mode of every part; negative: none.
// Obvious and slow: for at most 7 items.
class Optimum {
 public:
  explicit Optimum(const Instance& instance) : instance_(instance) { part(0); }
  [[nodiscard]] double makespan() const { return best_; }

 private:
  void part(std::size_t item) {
    if (item == instance_.items.size()) return choose(0, 0.0);
    for (std::size_t p = 0; p <= parts_.size(); ++p) {
      if (p == parts_.size()) parts_.emplace_back();
      parts_[p].push_back(static_cast<std::int32_t>(item));
      part(item + 1);
      parts_[p].pop_back();
      if (parts_[p].empty()) parts_.pop_back();
    }
  }
  void choose(std::size_t p, double longest) {
    if (best_ >= 0.0 && longest >= best_) return;
    if (p == parts_.size()) {
      if (hetsp::packing::places(instance_, ranks_)) best_ = longest;
      return;
    }
    for (const auto& mode : instance_.modes) {
      double seconds = 0.0;
      std::int64_t tokens = 0;
      for (const auto i : parts_[p]) seconds += mode.seconds(instance_.items[i]), tokens += instance_.items[i].tokens;
      if (tokens > mode.room) continue;
      ranks_.push_back(mode.ranks);
      choose(p + 1, std::max(longest, seconds));
      ranks_.pop_back();
    }
  }

  const Instance& instance_;
  double best_ = -1.0;
  std::vector<std::vector<std::int32_t>> parts_;
  std::vector<std::int32_t> ranks_;
};

}  // namespace corner_instance
