// A plan on a machine: who computes, sends and waits when.
#pragma once

#include "hetsp/simulator/step_program.h"
#include "hetsp/simulator/timeline.h"

namespace hetsp::simulator {

// Lowers the plan (step_program.h), runs it (event_loop.h) and accounts for every second of every rank (timeline.h). Throws
// InvalidArgument where plan, cost model and machine do not fit together.
[[nodiscard]] Timeline simulate(const planner::Plan& plan, const planner::CostModel& cost, const Machine& machine,
                                const Options& options = {});

}  // namespace hetsp::simulator
