// Where each sequence of a step goes: the planner's working form, one entry per sequence, before it becomes a plan.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// One sequence's micro-batch and ranks. Ranks ascend, so that equal sets are equal and neighbours in a ring are near.
struct Place {
  std::int32_t micro_batch = 0;
  std::vector<std::int32_t> ranks;
};

using Assignment = std::vector<Place>;  // [sequences]

// The plan with those places: sequences of one micro-batch on the same ranks share one group, larger groups come first, and
// micro-batches without sequences are dropped. Several ranks form a ring with the zigzag cut. Times are left at 0.
[[nodiscard]] Plan make_plan(std::span<const Sequence> sequences, const Assignment& assignment, std::int32_t ranks,
                             Synchronisation synchronisation);

}  // namespace hetsp::planner
