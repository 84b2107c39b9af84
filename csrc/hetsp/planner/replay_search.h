// Local search under a replay: for what prices cannot say of a step.
#pragma once

#include "hetsp/packing/effort.h"
#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// A cost model prices a group as the sum of its sequences, each as if it travelled alone and nothing were hidden. A replay
// knows more: hops that computation hides, start-ups that a group pays once, links that groups share. The search starts from a
// plan that is good under prices and hill-climbs under the replay (options.replay), which it asks for seconds and for how long
// each rank works and communicates:
//
//   move    a sequence of a slowest group goes to a group with time to spare, or changes places with a shorter one of it
//   kind    a slowest group shares its sequences another way on the same ranks
//
// Prices only propose; the replay decides, and only what is faster stays. Where ranks wait after each micro-batch those add up,
// so a step is replayed by the micro-batches that a move touches; chains are replayed whole. Groups keep their ranks, so that a
// placement stays what it was, and those that offload keep their sequences.
//
// Returns the plan's own draft where nothing is found. Needs options.replay.
[[nodiscard]] Draft search_by_replay(const Task& task, const Plan& start, packing::Effort& effort);

// A replay of the whole step in visits, as other searches count them: about as much as it takes time.
[[nodiscard]] std::int64_t work_of_replay(const Task& task);

}  // namespace hetsp::planner
