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

// The plan of options.strategy, checked and priced, with its bound, each micro-batch's share of the bound, and how it was
// found. `auto` is the best of pack_step (pack_step.h), where any degree is allowed also of powers of two alone, and of
// every strategy that is cheap beside it. Plans are exclusive, but
// for zeppelin's where options.exclusive is not set.
[[nodiscard]] Plan make_exclusive_plan(const Task& task);

}  // namespace hetsp::planner
