// The bounded dual simplex method (Lemke 1954), from a dual feasible basis: what re-solves after rows or bounds changed, and
// what starts from nothing, with costs shifted until the slack basis is dual feasible.
#pragma once

#include "hetsp/lp/dictionary.h"
#include "hetsp/lp/primal_simplex.h"

namespace hetsp::lp {

// Makes the basis dual feasible: a boxed variable moves to its other bound, the cost of any other is shifted until its reduced
// cost is zero. Values must be computed again. Expects reduced costs.
void make_dual_feasible(Dictionary& d);

// `perturbation`: how far costs are moved, relative to their size, when the dual objective stalls; 0 for never. `shake`: from
// the start, to leave by another way where the last run was lost. Expects values and reduced costs of a dual feasible basis.
//
// A small pivot may make the basis dependent. Its repair leads back to an earlier basis, and the same pivots may follow for
// ever: after a few repairs the run is lost. An entry about which row and column differ, both fresh, is rounding and no pivot.
Outcome dual_simplex(Dictionary& d, double perturbation, bool shake, Ray& ray);

}  // namespace hetsp::lp
