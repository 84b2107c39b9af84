// The bounded primal simplex method (Dantzig 1951), from a primal feasible basis: what re-solves after a column was added.
#pragma once

#include "hetsp/lp/dictionary.h"

namespace hetsp::lp {

enum class Outcome {
  done,        // primal: dual feasible; dual: primal feasible; with bounds and costs as worked with
  infeasible,  // dual only: its ray is the row `rho` of the Ray
  unbounded,   // primal only: `entering` moves in `direction`, x_B falls by `w` times that
  lost,        // feasibility was lost to rounding, or the iterations ran out: start over from a fresh factorisation
  spent,       // the budget is used up
};

struct Ray {
  int entering = -1, direction = 1;
  SparseVector w, rho;
};

// `perturbation`: how far bounds are moved apart, relative to their size, when steps of length zero pile up; 0 for never.
// Expects values and reduced costs of a primal feasible basis.
Outcome primal_simplex(Dictionary& d, double perturbation, Ray& ray);

}  // namespace hetsp::lp
