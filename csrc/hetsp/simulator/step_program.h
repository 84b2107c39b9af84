// Lowers a plan to the tasks that its ranks do.
#pragma once

#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"
#include "hetsp/simulator/machine.h"
#include "hetsp/simulator/task_graph.h"

namespace hetsp::simulator {

struct Options {
  bool overlap = true;     // the next hop of a ring travels while a rank computes
  bool contention = true;  // messages share links; without it every group has the machine to itself
  bool packed = true;      // a group's sequences travel together and pay start-ups once; else each its own
  Routing routing = Routing::own_nic;
};

// All layers of a micro-batch are one: forward, (with recomputation the forward again,) backward, each with the time and the
// traffic of all layers. That is exact where every layer of a rank takes as long as the next. In a pass, groups over several
// nodes come first, then those over several ranks, then single ranks: a rank that waits for a message computes for another
// group meanwhile, unless overlap is off. A group's pass:
//
//   linear modules -> [all-to-all of queries, keys, values] -> attention in ring_degree steps -> [all-to-all of outputs]
//
// the backward in the order attention, linear. Step j of the ring needs hop j; hop j needs hop j - 1 and, as a rank has room
// for two blocks of keys, step j - 2. A ring of more than 64 ranks is lowered as 64 steps that stand for several. Gathered keys
// arrive before the attention, which is then one step.
//
// Of the work, the forward is 2/7 of the attention and 1/3 of the linear modules (2/9 and 1/4 with recomputation). A cost model
// without shape knows only the sum: its groups have one pass, and delays in place of messages, (d - 1) hops for a ring.
// Every rank does micro_batch_seconds at the end of each micro-batch; of chained plans (planner/plan.h) those of its groups
// alone. Where the plan synchronises there (micro_batch, layer), it waits for all others, and before that the ranks of a
// placeholder do placeholder_seconds. Throws InvalidArgument where the plan and the machine do not fit together.
[[nodiscard]] TaskGraph lower(const planner::Plan& plan, const planner::CostModel& cost, const Machine& machine,
                              const Options& options);

}  // namespace hetsp::simulator
