// Proof that a plan can run: every token once, memory on every rank, legal ranks and cuts. Balance is a figure, not a hope.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// Throws InvalidArgument naming the micro-batch, group, rank or sequence at fault, unless
//   - every sequence of the plan is in exactly one group,
//   - every group has sequences, and ranks that exist and are distinct,
//   - head_degree x ring_degree is the number of ranks; a whole cut has one rank; activations are kept or offloaded,
//   - no rank holds more than tokens_per_rank tokens in a micro-batch, summed over its groups; of an exclusive plan: no rank
//     is in two groups of a micro-batch, and each group holds at most as many tokens as its ranks have room for together,
//   - with Synchronisation::layer each rank is in a group or in the placeholder of every micro-batch, and not in both; else
//     there are no placeholders.
//
// Offloaded activations free offload_ratio x offloadable of a group's tokens.
void check(const Plan& plan, const Cluster& cluster);

// Tokens that each rank holds in one micro-batch: the pieces of each sequence by its cut; of a Ulysses group an equal share of
// its packed sequences. [ranks]
[[nodiscard]] std::vector<std::int64_t> rank_tokens(const Plan& plan, int micro_batch);

// Fills rank_seconds, compute_seconds and makespan, of the plan and of its micro-batches, from the plan's groups, as the plan's
// synchronisation has them add up. A rank's seconds are its groups', micro_batch_seconds and placeholders', without its waits.
// A group pays for the nodes that its ranks really lie on; ranks_per_node 0: one node.
void predict(Plan& plan, const CostModel& cost, int ranks_per_node = 0);

// Largest value over the mean, 1 for perfect balance; idle ranks count as 0. 1 for an empty or all-zero span.
[[nodiscard]] double balance(std::span<const double> rank_seconds);

}  // namespace hetsp::planner
