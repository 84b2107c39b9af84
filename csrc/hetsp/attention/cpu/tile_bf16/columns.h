// What the columns (runs of kWords lanes) of a cut tile see: products and softmax skip the rest. A causal diagonal tile of four
// columns so costs 5/8 of a whole one.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

struct KeyRange {
  std::int64_t begin, end;
};

class Columns {
 public:
  static constexpr std::int64_t kLanesOf = 16, kMost = kTile / kLanesOf;
  static constexpr std::int64_t kKeyBlock = 16;

  Columns(const TileMask& mask, std::int64_t lanes, std::int64_t keys) : count_(lanes / kLanesOf), key_count_(keys) {
    for (std::int64_t c = 0; c < count_; ++c) {
      // low and high do not decrease along the lanes. Begins are even and ends are even or the last: weights go in pairs.
      const std::int64_t low = mask.low[c * kLanesOf], high = mask.high[c * kLanesOf + kLanesOf - 1];
      seen_[c] = {low / 2 * 2, high % 2 != 0 && high < keys ? high + 1 : high};
      if (low >= high) seen_[c] = {0, 0};
      const std::int64_t last_low = mask.low[c * kLanesOf + kLanesOf - 1], first_high = mask.high[c * kLanesOf];
      whole_[c] = {(last_low + 1) / 2 * 2, first_high / 2 * 2};
      if (whole_[c].begin >= whole_[c].end) whole_[c] = {seen_[c].end, seen_[c].end};
    }
  }

  // Keys [begin, end) of the column at `lane`; none where begin >= end.
  [[nodiscard]] KeyRange keys(std::int64_t lane) const { return seen_[lane / kLanesOf]; }

  // Those of them that every lane of the column sees, which need no mask; both ends even, or none at the end.
  [[nodiscard]] KeyRange whole(std::int64_t lane) const { return whole_[lane / kLanesOf]; }

  // body(keys, lane, lane_end): blocks of kKeyBlock keys with the columns that see some of them, a run.
  template <class Body>
  void for_each_key_block(const Body& body) const {
    for (std::int64_t key = 0; key < key_count_; key += kKeyBlock) {
      const std::int64_t end = key + kKeyBlock < key_count_ ? key + kKeyBlock : key_count_;
      const KeyRange columns = columns_that_see(key, end);
      if (columns.begin < columns.end) body(KeyRange{key, end}, columns.begin * kLanesOf, columns.end * kLanesOf);
    }
  }

  // body(keys, lane, lane_end): runs of columns that see the same keys, without those that see none.
  template <class Body>
  void for_each_run(const Body& body) const {
    for (std::int64_t c = 0; c < count_;) {
      std::int64_t end = c + 1;
      while (end < count_ && seen_[end].begin == seen_[c].begin && seen_[end].end == seen_[c].end) ++end;
      if (seen_[c].begin < seen_[c].end) body(seen_[c], c * kLanesOf, end * kLanesOf);
      c = end;
    }
  }

 private:
  [[nodiscard]] KeyRange columns_that_see(std::int64_t key, std::int64_t key_end) const {
    KeyRange found{0, 0};
    for (std::int64_t c = 0; c < count_; ++c) {
      if (seen_[c].begin >= key_end || seen_[c].end <= key) continue;
      if (found.begin == found.end) found.begin = c;
      found.end = c + 1;
    }
    return found;
  }

  std::int64_t count_, key_count_;
  KeyRange seen_[kMost], whole_[kMost];
};

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
