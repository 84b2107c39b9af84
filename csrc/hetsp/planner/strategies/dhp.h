// Dynamic hybrid parallelism (arXiv 2602.21788), the nearest competitor: rings of any degree.
#pragma once

#include "hetsp/planner/strategies/task.h"

namespace hetsp::planner {

// Two stages for a micro-batch, as the paper describes them:
//
//   1  Sequences are packed best fit decreasing into atomic groups: one goes into the fullest group that still holds it, else
//   it
//      opens a group of the d0 = ceil(s / C) ranks that its memory asks for.
//   2  Ranks are handed to those groups so that the slowest ends earliest: the paper's two-dimensional dynamic programme
//      F(i, j) = min over d >= d0 of max(F(i - 1, j - d), T_i(d)). Its optimum is the least T at which the fewest ranks of each
//      group, min { d >= d0 : T_i(d) <= T }, sum to at most N; bisection on T finds it without the table.
//
// Micro-batches are runs of neighbours by length, as few as the first stage finds room in; the paper leaves that choice open.
[[nodiscard]] Draft draft_dhp(const Task& task);

}  // namespace hetsp::planner
