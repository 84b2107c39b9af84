// A packing, and the proof that it is one.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/instance.h"

namespace hetsp::packing {

struct Bin {
  std::int32_t mode = 0;             // index into Instance::modes
  std::vector<std::int32_t> items;   // indices into Instance::items, at least one
};

struct Packing {
  std::vector<Bin> bins;
  double makespan = 0.0;  // seconds: the longest bin's sum
};

// The longest bin's sum of item seconds, recomputed.
[[nodiscard]] double makespan(const Instance& instance, const std::vector<Bin>& bins);

// True where groups of these ranks can stand on the nodes of the instance (Instance::ranks_per_node), each node holding
// whole nodes of large groups or parts that fit together; first fit decreasing decides, so a false may be too strict.
[[nodiscard]] bool places(const Instance& instance, const std::vector<std::int32_t>& ranks_of_groups);

// Throws InvalidArgument naming the bin, item or sum at fault unless every item is in exactly one bin, rooms and the budget
// of ranks hold, the groups can be placed on the nodes, and `makespan` is the recomputed one (within 1e-9).
void check(const Instance& instance, const Packing& packing);

}  // namespace hetsp::packing
