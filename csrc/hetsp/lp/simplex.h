// Linear programmes, solved again and again as they grow: minimise cost x, row_lower <= A x <= row_upper, lower <= x <= upper.
//
// solve() starts from the present basis. A primal feasible one (after columns came, or costs changed) goes to the primal
// method, any other to the dual one, with costs shifted where it is not dual feasible either; what was shifted or perturbed is
// restored and the other method removes what that leaves, so that a status is about the programme as given. docs/lp.md says
// how.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/lp/dictionary.h"
#include "hetsp/lp/model.h"
#include "hetsp/lp/options.h"

namespace hetsp::lp {

class Simplex {
 public:
  // Starts from the basis of all rows' activities. Throws InvalidArgument as check(model) does, or for an option out of range.
  explicit Simplex(const Model& model, const Options& options = {});

  Status solve();

  // A column or a row more; returns its index. The basis stays: a column joins at a bound, a row with its activity basic.
  // Throw InvalidArgument and change nothing for a value that check(model) would refuse.
  int add_column(double cost, double lower, double upper, std::span<const Entry> entries);
  int add_row(double lower, double upper, std::span<const Entry> entries);
  void set_bounds(int column, double lower, double upper);
  void set_row_bounds(int row, double lower, double upper);
  void set_cost(int column, double cost);

  [[nodiscard]] int columns() const { return d_.columns(); }
  [[nodiscard]] int rows() const { return d_.rows(); }

  // Of the last solve().
  [[nodiscard]] Status status() const { return status_; }
  [[nodiscard]] double objective() const { return objective_; }
  [[nodiscard]] std::span<const double> primal() const { return primal_; }              // [columns]
  [[nodiscard]] std::span<const double> row_activity() const { return row_activity_; }  // [rows] A x
  [[nodiscard]] std::span<const double> duals() const { return duals_; }  // [rows] >= 0 at a lower bound, <= 0 at an upper one
  [[nodiscard]] std::span<const double> reduced_costs() const { return reduced_; }  // [columns] cost - A^T duals
  // infeasible: [rows] y with min of y r over row bounds > max of (A^T y) x over column bounds.
  // unbounded: [columns] a direction that keeps every row and column inside its bounds, with cost < 0. Else empty.
  [[nodiscard]] std::span<const double> ray() const { return ray_; }
  [[nodiscard]] std::int64_t iterations() const { return d_.iterations; }  // of all solves
  [[nodiscard]] std::int64_t work() const { return d_.work(); }  // entries visited in all solves

 private:
  Status run();
  bool residual_is_small();
  bool keep_farkas(const SparseVector& rho);
  void keep_direction(int entering, int direction, const SparseVector& w);
  void extract();

  Dictionary d_;
  Status status_ = Status::work_limit;
  double objective_ = 0.0;
  std::vector<double> primal_, row_activity_, duals_, reduced_, ray_;
};

}  // namespace hetsp::lp
