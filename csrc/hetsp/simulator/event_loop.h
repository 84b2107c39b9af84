// Runs a task graph on a machine: a discrete-event simulation with fluid flows.
#pragma once

#include "hetsp/simulator/machine.h"
#include "hetsp/simulator/task_graph.h"
#include "hetsp/simulator/timeline.h"

namespace hetsp::simulator {

// A rank computes one task at a time, without interruption: of those that are ready the one created first. A transfer waits for
// its start-up, then flows at its max-min fair rate (fair_share.h), which changes whenever a flow begins or ends; without
// `contention` every flow has the machine to itself. Fills all of the timeline but communication and wait.
[[nodiscard]] Timeline run(const Machine& machine, const TaskGraph& graph, bool contention);

}  // namespace hetsp::simulator
