// Connected components of a list of segments. Two segments belong together where they share a query row or a key row, directly
// or by way of others. Gradients of different components have no number in common: each is computed by itself, and to the same
// bits whatever else is in the call.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/attention/segment.h"

namespace hetsp::attention::cpu {

struct Components {
  std::vector<std::int64_t> of_segment;  // -1: the segment is empty on one of its axes and belongs nowhere
  std::int64_t count = 0;                // numbered in the order of their first segments
};

[[nodiscard]] Components components(const Segment* segments, std::int64_t count);

}  // namespace hetsp::attention::cpu
