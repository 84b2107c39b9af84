// How far the entering variable goes, and what stops it. Both tests are Harris's (1973): a first pass finds the step that keeps
// every bound within its tolerance, a second takes the largest pivot among what stops before that step. Large pivots are worth
// more than exactness here: a bound that is overrun by less than its tolerance is corrected at the end (simplex.cc).
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/lp/dictionary.h"

namespace hetsp::lp {

struct PrimalStep {
  enum class Kind { exchange, flip, unbounded } kind = Kind::unbounded;
  int position = -1;  // exchange: of what leaves
  Place leaves = Place::lower;
  double length = 0.0;  // >= 0, of the entering variable in its direction
  bool overrun = false;  // exchange: what leaves is outside its bound already, by less than its tolerance
};

// `entering` moves in `direction` (+1, -1), so that x_B falls by length * direction * w. Bounds as worked with.
PrimalStep primal_ratio_test(const Dictionary& d, int entering, int direction, const SparseVector& w);

struct DualStep {
  int entering = -1;  // -1: the dual is unbounded
  std::vector<std::int32_t> flips;  // nonbasic boxed variables that pass to their other bound
};

// The variable of the row alpha leaves with `infeasibility` (below its lower bound < 0, above its upper bound > 0). With bound
// flipping (Fourer 1994; Maros 2003): the dual objective still rises after a reduced cost has changed its sign, as long as what
// its variable's flip takes away, |alpha_j| (u_j - l_j), is less than the infeasibility that is left.
DualStep dual_ratio_test(const Dictionary& d, double infeasibility, const SparseVector& alpha);

}  // namespace hetsp::lp
