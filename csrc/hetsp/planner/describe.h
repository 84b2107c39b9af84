// A plan as a person reads it.
#pragma once

#include <string>

#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// How many sequences lie on how many ranks, over all micro-batches: "12x1 1x3" is twelve on one rank each and one on three.
[[nodiscard]] std::string one_line(const Plan& plan);

// A table: makespan, bound, gap and balance; the groups of each micro-batch; the time of each rank, or of the least, mean and
// most loaded where there are many. Long lists are cut short and say so.
[[nodiscard]] std::string table(const Plan& plan);

}  // namespace hetsp::planner
