// The working state of both simplex methods: the system in the present basis, in scaled units.
//
// Row i of the model becomes  a_i x - r_i = 0  with a variable r_i, the row's activity, between the row's bounds. So every
// right-hand side is zero, every variable has two bounds, and the basis that holds all r is always nonsingular. With B the
// basic and N the other columns of [A, -I],
//
//   x_B = -B^-1 N x_N,     d = c - N^T B^-T c_B,     row p of the dictionary:  alpha_p = (e_p B^-1) N.
//
// Variables are numbered in the order in which rows and columns came, so that additions renumber nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/lp/basis.h"
#include "hetsp/lp/lines.h"
#include "hetsp/lp/model.h"
#include "hetsp/lp/options.h"
#include "hetsp/lp/scaling.h"
#include "hetsp/lp/sparse_vector.h"

namespace hetsp::lp {

enum class Place : std::uint8_t { basic, lower, upper, free };  // where a variable is; free: nonbasic at 0 without bounds

class Dictionary {
 public:
  Dictionary(const Model& model, const Options& options);

  // --- the programme, in scaled units; a variable is a column or a row's activity
  [[nodiscard]] int variables() const { return static_cast<int>(place.size()); }
  [[nodiscard]] int rows() const { return static_cast<int>(row_variable.size()); }
  [[nodiscard]] int columns() const { return static_cast<int>(column_variable.size()); }
  int add_column(double cost_given, double below, double above, std::span<const Entry> entries);
  int add_row(double below, double above, std::span<const Entry> entries);
  void set_bounds(int variable, double below, double above);  // unscaled
  void set_cost(int variable, double cost_given);             // unscaled
  [[nodiscard]] std::span<const Entry> column(int variable) const;
  [[nodiscard]] double unit(int variable) const;  // value here times this is the value outside

  // --- bounds and costs, as given and as worked with: the methods shift or perturb the latter against stalling
  void restore_bounds();
  void restore_costs();
  // Both hold in the caller's units and in scaled ones, down to what rounding leaves.
  [[nodiscard]] double primal_tolerance(int v, double bound) const {
    return std::max(least_[v], primal_tolerance_ * std::abs(bound));
  }
  [[nodiscard]] double dual_tolerance(int v) const { return dual_least_[v]; }
  [[nodiscard]] bool boxed(int v) const { return lower[v] > -kInfinity && upper[v] < kInfinity; }
  // How far a basic variable lies outside: below its lower bound < 0, above its upper bound > 0, within tolerance 0.
  [[nodiscard]] double infeasibility(int v) const;
  // How much the objective falls per unit of the best allowed move of a nonbasic variable; within tolerance 0.
  [[nodiscard]] double attraction(int v) const {
    const double d = reduced[v];
    if (std::abs(d) <= dual_least_[v] || place[v] == Place::basic || lower[v] == upper[v]) return 0.0;
    return place[v] == Place::free ? std::abs(d) : std::max(place[v] == Place::lower ? -d : d, 0.0);
  }
  [[nodiscard]] bool primal_feasible() const;
  [[nodiscard]] bool dual_feasible() const;

  // --- the basis
  // Factors if stale or `fresh` is asked for; a dependent basis is repaired with activities of rows. How many it took.
  int factor(bool fresh);
  void place_nonbasic(int v);   // at a bound that exists, the present one if it does
  void compute_values();        // of all variables
  void compute_reduced_costs();
  void ftran_column(int v, SparseVector& w) const;      // w = B^-1 a_v
  void btran_unit(int position, SparseVector& rho) const;  // rho = B^-T e_position
  void compute_row(const SparseVector& rho, SparseVector& alpha) const;  // alpha = rho N over the nonbasic variables
  // The sign of rho A x - rho r over the bounds as given, where all of them have one: then no x is feasible. 0 if they do not.
  [[nodiscard]] int excludes_zero(const SparseVector& rho) const;
  void exchange(int position, int entering, Place leaving_place, const SparseVector& w);

  // --- the budget of the present solve()
  void start_budget();
  [[nodiscard]] bool spent() const { return work() >= budget_end_; }
  [[nodiscard]] bool cancelled() const {
    return options_.cancel != nullptr && options_.cancel->load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::int64_t work() const { return work_ + basis.work(); }

  std::vector<double> lower, upper, cost;  // [variables] as worked with
  std::vector<double> given_lower, given_upper, given_cost;  // [variables] as given
  std::vector<double> value, reduced;  // [variables]
  std::vector<Place> place;  // [variables]
  std::vector<std::int32_t> position;  // [variables] in the basis, or -1
  std::vector<std::int32_t> line;  // [variables] column j >= 0, or ~i for the activity of row i
  std::vector<std::int32_t> row_variable, column_variable;
  bool bounds_changed = false, costs_changed = false;  // worked-with differs from given
  bool edge_stale = false;  // the basis changed without its dual weights
  std::vector<double> devex, edge;  // [variables] weights of the pricing (pricing.h)
  Basis basis;
  Scaling scaling;
  std::int64_t iterations = 0;
  std::uint64_t random = 0x9e3779b97f4a7c15u;  // state of the perturbations: the same on every machine

  [[nodiscard]] double uniform();  // in [0, 1)

 private:
  int add_variable(int line_of, double cost_given, double below, double above);

  void set_tolerances(int v);

  Options options_;
  double primal_tolerance_;
  std::vector<double> least_, dual_least_;  // [variables]
  Lines columns_;  // column j: rows
  Lines rows_;  // row i: variables
  std::vector<Entry> activity_;  // [rows] the column of r_i
  mutable std::vector<std::uint8_t> marked_;
  mutable std::int64_t work_ = 0;
  std::int64_t budget_end_ = 0;
};

}  // namespace hetsp::lp
