// How many ranks a set of items needs to end by a target T. As costs are linear, three sums say all about a set, and packing
// for a fixed T becomes: part the items into sets such that the ranks they need add up to at most N.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "hetsp/packing/instance.h"

namespace hetsp::packing {

struct Sums {  // over the items of one set
  double pairs = 0.0;
  std::int64_t tokens = 0, items = 0;

  void add(const Item& item) { pairs += item.pairs, tokens += item.tokens, ++items; }
  void remove(const Item& item) { pairs -= item.pairs, tokens -= item.tokens, --items; }
};

// A size is the modes of one number of ranks. The load of a set on a size is the larger of time / T and tokens / room, by its
// best mode; it fits where that is at most 1.
class Need {
 public:
  explicit Need(const Instance& instance);
  // seconds: T > 0, or infinity, where only rooms matter.
  void set_target(double seconds);
  [[nodiscard]] double target() const { return target_; }

  [[nodiscard]] std::int32_t sizes() const { return static_cast<std::int32_t>(sizes_.size()); }
  [[nodiscard]] std::int32_t ranks(std::int32_t size) const { return sizes_[size].ranks; }
  [[nodiscard]] double load(std::int32_t size, const Sums& sums) const {
    const Size& s = sizes_[size];
    double least = load_of_mode(modes_[s.first], sums);
    for (std::int32_t m = s.first + 1; m < s.end; ++m) least = std::min(least, load_of_mode(modes_[m], sums));
    return least;
  }
  // The mode behind load(): index into Instance::modes.
  [[nodiscard]] std::int32_t mode(std::int32_t size, const Sums& sums) const;
  // The smallest size from `from` on that the set fits, sizes() if there is none.
  [[nodiscard]] std::int32_t least(const Sums& sums, std::int32_t from = 0) const;
  // Sizes worth a look for one item: the least that it fits, its neighbours, then at growing steps; how many.
  static constexpr int kCandidates = 12;
  int candidates(const Item& item, std::array<std::int32_t, kCandidates>& found) const;
  [[nodiscard]] std::int32_t first_mode(std::int32_t size) const { return sizes_[size].first; }
  [[nodiscard]] std::int32_t end_mode(std::int32_t size) const { return sizes_[size].end; }
  // Ranks, made smooth: between those of the size below and those of `size`, rising with how far the set is from the smaller
  // one. Concave, so that emptying a group that is almost small enough pays more than levelling.
  [[nodiscard]] double cost(std::int32_t size, const Sums& sums) const {
    const double here = load(size, sums);
    const double below = size == 0 ? 0.0 : sizes_[size - 1].ranks;
    double x = here;  // 0: the smaller size would do, 1: full
    if (size > 0) {
      const double there = load(size - 1, sums);
      x = there > here ? std::clamp((there - 1.0) / (there - here), 0.0, 1.0) : 1.0;
    }
    return below + (sizes_[size].ranks - below) * x * (2.0 - x);
  }

 private:
  struct Size {
    std::int32_t ranks, first, end;  // modes
  };
  struct ScaledMode {
    double per_pair, per_token, per_item;  // fractions of T
    double per_room;                       // 1 / tokens
  };
  // True where the rank-seconds of no set fall, and its room per rank does not rise, with the ranks: then a set that loads a
  // size L times needs L times its ranks, and the sizes between are skipped.
  [[nodiscard]] bool never_falls() const;
  static double load_of_mode(const ScaledMode& m, const Sums& sums) {
    const double tokens = static_cast<double>(sums.tokens);
    return std::max(m.per_pair * sums.pairs + m.per_token * tokens + m.per_item * static_cast<double>(sums.items),
                    m.per_room * tokens);
  }

  const Instance* instance_;
  std::vector<Size> sizes_;
  std::vector<ScaledMode> modes_;
  std::vector<std::int32_t> size_at_least_;  // [N + 1]: the first size of at least so many ranks
  bool may_skip_ = false;
  double target_ = 0.0;
};

}  // namespace hetsp::packing
