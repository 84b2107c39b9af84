// `auto` where parameters are replicated: chains of groups, each rank's its own (ChainBuilder), improved by local search.
#pragma once

#include <vector>

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// A solution is a kind and degree for each sequence and a priority for the order in which shared ones are placed; ChainBuilder
// decodes it. Starts: for targets from `lower_bound` on, each sequence on the kind of least rank-seconds that ends by the
// target; and the kinds that `seeds` chose. Steps change the kinds or priorities of a few long sequences; a step is kept unless
// it is worse (with detours by record-to-record travel: Dueck, J. Comput. Phys. 104, 1993).
//
// Ends at target_gap, or after options.work_limit visits of a rank, group or gap (0: in proportion to the step), `seconds`
// (0: none) or the options' cancel. Deterministic but for the last two.
[[nodiscard]] Draft search_chains(const Task& task, const std::vector<Draft>& seeds, double lower_bound, double seconds);

}  // namespace hetsp::planner
