// Plans of disjoint groups, whatever strategy makes them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// The plan of options.strategy, checked and priced, with its bound, each micro-batch's share of the bound, and how it was
// found: plan_auto's (exclusive_auto.h), or that of a named draft (named_drafts.h). Plans are exclusive, but for zeppelin's
// where options.exclusive is not set.
[[nodiscard]] Plan make_exclusive_plan(const Task& task);

}  // namespace hetsp::planner
