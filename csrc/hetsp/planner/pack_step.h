// A step as bin packing: which groups of which micro-batches the packing room finds, and what it proves.
#pragma once

#include <string>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// A certified bound of any plan, ranks in several groups and waits of any kind included, in seconds of the whole step: the area
// bound of all sequences together (packing/area_bound.h), and micro_batch_seconds for each micro-batch that memory asks for;
// with Synchronisation::step, where ranks may have different counts, for the tokens that a full one holds. On a cluster with
// host memory: of plans that offload what computation hides (offload.h), and no more.
[[nodiscard]] double area_bound(const Task& task);

struct Packed {
  Draft draft;
  double lower_bound = 0.0;    // seconds, micro_batch_seconds included; of exclusive plans that wait after each micro-batch
  double first_seconds = 0.0;  // from the call to the first complete plan
  std::string status;          // "optimal", "target" or "limit"
};

// The best packing that the search finds within the work_limit, time_limit and target_gap of the options. Throws PlanInfeasible
// where it finds none.
[[nodiscard]] Packed pack_step(const Task& task);

}  // namespace hetsp::planner
