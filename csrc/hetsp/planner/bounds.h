// A certified lower bound: no plan is faster under the cost model, whatever groups, micro-batches and shared ranks it uses.
#pragma once

#include <span>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// The least T (within a relative 1e-9, rounded down) that none of these facts refutes, plus micro_batch_seconds for each of
// the ceil(tokens / (ranks x tokens_per_rank)) micro-batches that memory asks for. Let a plan have makespan T.
//
//   longest  A sequence runs on d ranks with d x tokens_per_rank >= its tokens and t_d <= T. Let D_T(s) be the least such d
//            (with e(d) replaced by min over d' >= d of e(d'), which only lowers t_d); if there is none, T is refuted.
//   area     It then occupies d t_d = a p + b s + e(d) s + h d (d - 1) + d fixed rank-seconds. That never falls with d, so
//            at least its value at D_T(s). The sum over sequences is what the ranks spend together: at most ranks x T.
//   whole    At max_degree 1, of the k ranks + 1 longest sequences some rank has k + 1: T >= the sum of the k + 1 shortest.
//
// Ranks that serve several groups and any number of micro-batches are covered: only sums over groups were used. max_degree
// is the largest group that a plan may have. Throws PlanInfeasible if no degree holds some sequence.
[[nodiscard]] double lower_bound(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost,
                                 int max_degree);

}  // namespace hetsp::planner
