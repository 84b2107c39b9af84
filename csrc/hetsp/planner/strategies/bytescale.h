// ByteScale's hybrid data parallelism (arXiv 2502.21231, algorithms 1 and 2).
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Units of work: a sequence longer than a rank's room C goes with the offload ratio and the D(s) ranks of equation 3
// (offload.h; ratio 0 where the cluster has no host memory), shorter ones are packed best fit to C on one rank each. All ranks
// of a unit run it as one micro-batch, and a rank runs its units one after the other; counts may differ between ranks.
//
//   naive  Algorithm 1: units in the order their first sequence comes, onto the next ranks in turn.
//   dp     Algorithm 2, DP-balance: units by falling length in buckets of equal work. Again and again, the ranks that are more
//          than delta behind the most loaded one (all of them where none is) are served from the first bucket that is left,
//          each unit to the least loaded: units that run at one time are of one length.
//   pp     PP-balance: the same, but buckets are served in turn.
//
// The paper leaves delta and the number of buckets open: 5 % of the most loaded rank's time, and one bucket per degree.
[[nodiscard]] Draft draft_bytescale_naive(const Task& task);
[[nodiscard]] Draft draft_bytescale_dp(const Task& task);
[[nodiscard]] Draft draft_bytescale_pp(const Task& task);

}  // namespace hetsp::planner
