// What a solution is worth, from the programme alone: no basis, no scaling, nothing of the method that found it.
//
// x and y prove each other optimal where x is feasible, c - A^T y has the signs that its bounds allow, and both objectives
// agree:
//
//   dual objective = sum_i (y_i row_lower_i if y_i > 0 else y_i row_upper_i) + the same over d = c - A^T y and column bounds.
#pragma once

#include <span>

#include "hetsp/lp/model.h"

namespace hetsp::lp {

struct Residuals {
  double primal = 0.0;         // worst violation of a bound beyond rounding, over max(1, |bound|)
  double dual = 0.0;           // worst y or d of a sign that an infinite bound forbids, over max(1, |cost|, its terms)
  double complementarity = 0.0;  // worst |y or d| times the distance to the bound it stands for, over max(1, |objective|)
  double gap = 0.0;            // |objective - dual objective| over max(1, |objective|); infinite where dual is not 0
  double objective = 0.0;      // cost x
  [[nodiscard]] double worst() const;
};

// x: [columns], y: [rows]. Throws InvalidArgument for another size.
Residuals check_solution(const Model& model, std::span<const double> x, std::span<const double> y);

// By how much the rows' multipliers y prove the programme infeasible: min of y r over row bounds less max of (A^T y) x over
// column bounds, over the sum of the sizes of all terms. Above 0 it is a proof; -infinity if an infinite bound spoils it.
double check_infeasible(const Model& model, std::span<const double> y);

// The fall of the objective along the direction x, over max |x|; -infinity if a bound ends the direction.
double check_unbounded(const Model& model, std::span<const double> x);

}  // namespace hetsp::lp
