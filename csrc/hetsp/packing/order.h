// The same instance with its items by falling size, and the way back.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/packing.h"

namespace hetsp::packing {

struct Order {
  Instance given;
  Instance instance;                    // items by falling rank-seconds on the smallest size, then tokens, then as they came
  std::vector<std::int32_t> original;   // [item of `instance`]: item of the caller's
  std::vector<std::int32_t> place;      // [item of the caller's]: item of `instance`

  explicit Order(const Instance& instance_given);
  // Item indices of the caller's, bins of the larger ranks first.
  [[nodiscard]] Packing to_original(const Packing& packing) const;
  [[nodiscard]] Packing to_ordered(const Packing& packing) const;
};

// Sums in floating point: whether memory suffices at all, before anything is tried.
[[nodiscard]] double total_tokens(const Instance& instance);
// The most tokens that all ranks can hold at once.
[[nodiscard]] double most_room(const Instance& instance);

}  // namespace hetsp::packing
