// Which variable enters, which leaves: the weights that make a reduced cost, or an infeasibility, comparable.
//
// Primal: Devex (Harris 1973), d_j^2 / w_j, where w_j approximates the squared length of the edge along j in a reference frame.
// A new column joins with weight 1. Dual: steepest edge (Forrest and Goldfarb 1992), infeasibility_p^2 / ||e_p B^-1||^2, exact
// from the slack basis on and updated with one more solve.
#pragma once

#include "hetsp/lp/dictionary.h"

namespace hetsp::lp {

int choose_entering(const Dictionary& d);  // a nonbasic variable, or -1: dual feasible
int choose_leaving(const Dictionary& d);  // a position, or -1: primal feasible

// Before the exchange of `entering` with the variable at `position`; alpha is the row of that position.
void update_devex(Dictionary& d, int position, int entering, const SparseVector& alpha);

// Before the exchange as well; w = B^-1 a_entering, rho = B^-T e_position, tau = B^-1 rho.
void update_edge(Dictionary& d, int position, int entering, const SparseVector& w, const SparseVector& rho,
                 const SparseVector& tau);
// Back to all ones, after the basis changed without its weights.
void reset_edge(Dictionary& d);

}  // namespace hetsp::lp
