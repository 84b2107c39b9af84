// The bounded dual simplex method (Lemke 1954), from a dual feasible basis: what re-solves after rows or bounds changed, and
// what starts from nothing, with costs shifted until the slack basis is dual feasible.
#pragma once

#include "hetsp/lp/dictionary.h"
#include "hetsp/lp/primal_simplex.h"

namespace hetsp::lp {

// Makes the basis dual feasible: a boxed variable moves to its other bound, the cost of any other is shifted until its reduced
// cost is zero. Values must be computed again. Expects reduced costs.
void make_dual_feasible(Dictionary& d);

// `perturbation`: how far costs are moved, relative to their size, when the dual objective stalls; 0 for never. Expects values
// and reduced costs of a dual feasible basis.
Outcome dual_simplex(Dictionary& d, double perturbation, Ray& ray);

}  // namespace hetsp::lp
