// FlexSP's solver (arXiv 2412.01523; PKU-DAIR/Hetu-Galvatron, branch flexsp), its MILP apart.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Blaster: sequences by falling length are cut into chunks of neighbours, the least count that fits and four more; each chunk
// is a micro-batch, the count with the least sum of makespans wins, and one chunk without a plan rules its count out.
// Bucketing: a chunk's lengths are rounded up to the longest of their bucket. Groups have powers of two from 2 on (the release
// skips degree 1) and all ranks are used.
//
// Its mixed-integer programme is replaced by our own search over the same groups (packing/search.h), which finds better plans
// than SCIP does in 10 s: the strategy is what FlexSP would be with a solver that does not run out of time. Groups are doubled,
// the smallest first, until all ranks are used. Padding to 128 tokens is left out for all strategies alike.
[[nodiscard]] Draft draft_flexsp(const Task& task);

// Buckets of neighbours in rising lengths that waste the least, sum over i of (longest of its bucket - lengths[i]): 16 of them,
// and more until the rounded sum is at most (tokens + room) / 2. Returns the end of each bucket. The dynamic programme is
// FlexSP's; the cost is Monge, so each row is found by divide and conquer in O(n log n).
[[nodiscard]] std::vector<std::size_t> bucket_ends(const std::vector<std::int64_t>& lengths, std::int64_t room);

}  // namespace hetsp::planner
