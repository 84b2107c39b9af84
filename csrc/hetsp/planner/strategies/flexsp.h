// FlexSP's solver (arXiv 2412.01523; PKU-DAIR/Hetu-Galvatron, branch flexsp), its MILP apart.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Blaster: sequences by falling length are cut into chunks of neighbours, the fewest that memory holds and four more; each
// chunk is a micro-batch, the count with the least sum of makespans wins, and one chunk without a plan rules its count out.
//
// Bucketing: a chunk's lengths are rounded up to the longest of their bucket, and the programme knows no others; which members
// of a bucket go where is drawn at random (the release's random_pop_seqs). Makespans are of the true lengths.
//
// Groups (section 4.1) are Ulysses on powers of two ranks, from 2 on (the release skips degree 1); all ranks are used.
//
// Its mixed-integer programme is replaced by our own search over the same groups and rounded lengths (packing/search.h), which
// finds better plans than SCIP does in 10 s: the strategy is what FlexSP would be with a solver that does not run out of time.
// Groups are doubled, the smallest first, until all ranks are used; where that would slow the micro-batch, ranks stay idle, as
// the programme does not allow. Padding to 128 tokens is left out for all strategies alike.
[[nodiscard]] Draft draft_flexsp(const Task& task);

// Buckets of neighbours in rising lengths that waste the least, sum over i of (longest of its bucket - lengths[i]): 16 of them,
// and more until the rounded sum is at most (tokens + room) / 2. Returns the end of each bucket. The dynamic programme is
// FlexSP's; the cost is Monge, so each row is found by divide and conquer in O(n log n).
[[nodiscard]] std::vector<std::size_t> bucket_ends(const std::vector<std::int64_t>& lengths, std::int64_t room);

}  // namespace hetsp::planner
