// Plans of disjoint groups: the packing of a step, and the strategies by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Names of the strategies that make drafts, "auto" not among them.
[[nodiscard]] const std::vector<std::string>& draft_names();

// That strategy's draft; its header in strategies/ has the definition and its source.
[[nodiscard]] Draft make_draft(std::string_view strategy, const Task& task);

// Rank-seconds that the sequences take at least, over N: see exclusive_bound. Holds for any plan, ranks in several groups and
// waits of any kind included. Seconds of the whole step.
[[nodiscard]] double area_bound(const Task& task);

// The plan of options.strategy in the exclusive problem, checked and priced, with its bound, each micro-batch's share of the
// bound, and how it was found. `auto` is the best of
// all strategies that are cheap.
[[nodiscard]] Plan make_exclusive_plan(const Task& task);

}  // namespace hetsp::planner
