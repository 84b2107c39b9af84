// Zeppelin's hierarchical partition (arXiv 2509.21841).
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Three zones, whose attention runs one after the other on every rank: inter-node rings, intra-node rings, whole sequences.
//
//   nodes  By falling length: a sequence of at least s1 tokens is cut evenly over the k = ceil(s / s1) least loaded nodes, all
//          ranks of each, the others go whole to the least loaded node with room. If one finds none, s1 falls to the next
//          length that is 5 % shorter and all start again. Loads are quadratic costs, s1 starts at a node's room.
//   ranks  Inside each node the same over its ranks, next to what inter-node rings have put there; s2 starts at a rank's room.
//
// The paper's pseudo-code could not be read: this is its prose, with k rounded up to what the degrees allow. Where a rank may
// serve several groups, all zones share a micro-batch; in an exclusive plan each zone becomes one (serialise, draft.h). The
// step is cut into the fewest micro-batches, balanced by tokens, that all find room.
[[nodiscard]] Draft draft_zeppelin(const Task& task);

}  // namespace hetsp::planner
