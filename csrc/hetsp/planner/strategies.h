// The strategies behind make_plan (planner.h). Each returns places that hold every sequence within memory.
#pragma once

#include <optional>

#include "hetsp/planner/assignment.h"
#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/planner.h"

namespace hetsp::planner {

// What a strategy works on. Every sequence fits on max_degree ranks.
struct Problem {
  std::span<const Sequence> sequences;
  const Cluster& cluster;
  const CostModel& cost;
  const PlanOptions& options;
  int max_degree;      // of a group; 1 where only "whole" is executable
  double lower_bound;  // seconds, of the whole step
};

// Every sequence on all ranks; first fit, most tokens first, into micro-batches.
[[nodiscard]] Assignment place_static(const Problem& problem);

// Longest first, each on the rank with the least time so far (LPT: Graham, SIAM J. Appl. Math. 17, 1969), in the first
// micro-batch where that rank has room. Where all ranks wait after each micro-batch, their times of one micro-batch count.
[[nodiscard]] Assignment place_data_parallel(const Problem& problem);

// Any degree: balance.h for each count of micro-batches worth trying.
[[nodiscard]] Assignment place_auto(const Problem& problem);

// Sequence numbers by falling work, ties by falling tokens, then by rising number.
[[nodiscard]] std::vector<int> longest_first(std::span<const Sequence> sequences, const CostModel& cost);

}  // namespace hetsp::planner
