// Megatron-Core's hybrid context parallelism.
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// BalancedCPScheduler (Megatron-LM, megatron/core/pipeline_parallel/hybrid_cp_schedule.py). It knows only the cost s^2 / d, and
// gives a sequence d = 2^ceil(log2(s / C)) ranks. Rounds follow each other with a barrier; in a round, by falling length,
//
//   1  the next sequence for which there is a group of its degree, or d free ranks, goes to the least loaded of those groups
//      or opens one, whichever is less loaded; sequences lie in buckets of equal work, one per degree, the first served first;
//   2  once a smaller degree came up, the round ends as soon as loads differ by at most 5 % of the largest;
//   3  the last sequence of the most loaded group goes back while that lessens the difference, unless ranks are idle;
//   4  idle ranks are filled by doubling the smallest group, and again, until none is left.
//
// A round becomes a micro-batch. The original runs each sequence as a micro-batch of its own and so needs no memory for two;
// here a round's activations are alive together, and a group is only offered what it has room for.
[[nodiscard]] Draft draft_megatron_dynamic(const Task& task);

}  // namespace hetsp::planner
