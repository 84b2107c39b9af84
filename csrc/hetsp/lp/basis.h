// The basis matrix B: which variable is basic in which position, and solves with it across exchanges.
//
// The inverse is kept in product form (Dantzig and Orchard-Hays 1954) over the last factors: an exchange at position p with
// w = B^-1 a multiplies B from the right by the identity whose column p is w. Simplex has w at hand, so an update is a copy of
// its nonzeros; a fresh factorisation follows before the etas outgrow the factors. Positions are rows (lu.h).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "hetsp/lp/lu.h"
#include "hetsp/lp/sparse_vector.h"

namespace hetsp::lp {

class Basis {
 public:
  [[nodiscard]] int size() const { return static_cast<int>(head_.size()); }
  [[nodiscard]] int variable(int position) const { return head_[position]; }
  // A row joins, with its variable in its position. The factors are stale until factor().
  void extend(int variable);

  // Factors afresh; column(v) gives the entries of variable v. Positions are reordered. A variable whose column depends on
  // the others leaves for the unit column -e_row: `replaced` gets {row, variable that left}, and the caller names what enters.
  struct Replaced {
    int position, left;
  };
  std::vector<Replaced> factor(const std::function<std::span<const Entry>(int)>& column);
  void put(int position, int variable) { head_[position] = variable; }
  [[nodiscard]] bool factored() const { return factored_; }
  [[nodiscard]] bool due() const;  // the next exchange should follow a fresh factorisation
  [[nodiscard]] int updates() const { return static_cast<int>(etas_.size()); }

  void ftran(SparseVector& x) const;  // x = B^-1 x
  void btran(SparseVector& y) const;  // y = B^-T y
  // Puts `variable` into the position; w = B^-1 of its column.
  void exchange(int position, int variable, const SparseVector& w);

  [[nodiscard]] std::int64_t work() const { return lu_.work() + work_; }

 private:
  struct Eta {
    std::int32_t position;
    double pivot;
    std::int64_t begin, end;  // the other nonzeros of w
  };
  std::vector<std::int32_t> head_;  // [rows] variable
  Lu lu_;
  std::vector<Eta> etas_;
  std::vector<Entry> eta_entries_;
  bool factored_ = false;
  mutable std::int64_t work_ = 0;
};

}  // namespace hetsp::lp
