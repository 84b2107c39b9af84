// `auto` for disjoint groups: the best plan of the searches and of the named strategies.
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// The best of the packing (pack_step.h), of chains where parameters are replicated (chain_search.h) and of every named strategy
// that is cheap beside them, with the packing's bound. Where any degree is allowed, powers of two are searched, too.
//
// With options.replay the best is the one that it finds fastest; then packing and chains are also searched at prices for which
// computation hides the hops of rings in part or altogether, as a replay may find and the cost model does not count; the winner
// is improved under the replay itself (replay_search.h).
[[nodiscard]] Plan plan_auto(const Task& task);

}  // namespace hetsp::planner
