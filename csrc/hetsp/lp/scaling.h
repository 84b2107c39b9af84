// Powers of two that bring the entries of a matrix near 1: A' = R A S with the same solutions, exactly.
//
// Geometric scaling (Curtis and Reid's aim by alternation): each line is divided by the root of its largest times smallest
// entry, a few sweeps, then rounded, so that scaling rounds no number. A matrix that is near 1 already is left alone.
#pragma once

#include <span>
#include <vector>

#include "hetsp/lp/model.h"

namespace hetsp::lp {

struct Scaling {
  std::vector<double> row, column;  // R and S; x = S x', row activity = activity' / R
};

Scaling scale(const Model& model);

// The factor of one more line, whose entries are multiplied by `others` (R for a column, S for a row) already.
double scale_of(std::span<const Entry> entries, std::span<const double> others);

}  // namespace hetsp::lp
