#include "hetsp/lp/simplex.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"
#include "hetsp/lp/dual_simplex.h"
#include "hetsp/lp/primal_simplex.h"

namespace hetsp::lp {

namespace {

constexpr int kRounds = 24;               // changes of method; two or three are usual
constexpr double kPerturbation = 5e-7;    // the first time; less each round, so that the rounds end
constexpr double kLessEachRound = 0.2;

void check(const Model& model, const Options& options) {
  check(model);
  for (const double tolerance : {options.primal_tolerance, options.dual_tolerance})
    require(0.0 < tolerance && tolerance <= 1e-3, "lp: a tolerance is ", tolerance, ", must be in (0, 0.001]");
  require(options.work_limit > 0, "lp: the work limit is ", options.work_limit, ", must be above 0");
}

}  // namespace

Simplex::Simplex(const Model& model, const Options& options) : d_((check(model, options), model), options) { extract(); }

int Simplex::add_column(double cost, double lower, double upper, std::span<const Entry> entries) {
  check_cost("column", columns(), cost);
  check_bounds("column", columns(), lower, upper);
  check_entries("column", columns(), entries, rows());
  return d_.add_column(cost, lower, upper, entries);
}

int Simplex::add_row(double lower, double upper, std::span<const Entry> entries) {
  check_bounds("row", rows(), lower, upper);
  check_entries("row", rows(), entries, columns());
  return d_.add_row(lower, upper, entries);
}

void Simplex::set_bounds(int column, double lower, double upper) {
  require(0 <= column && column < columns(), "lp: column ", column, " must be in 0..", columns() - 1);
  check_bounds("column", column, lower, upper);
  d_.set_bounds(d_.column_variable[column], lower, upper);
}

void Simplex::set_row_bounds(int row, double lower, double upper) {
  require(0 <= row && row < rows(), "lp: row ", row, " must be in 0..", rows() - 1);
  check_bounds("row", row, lower, upper);
  d_.set_bounds(d_.row_variable[row], lower, upper);
}

void Simplex::set_cost(int column, double cost) {
  require(0 <= column && column < columns(), "lp: column ", column, " must be in 0..", columns() - 1);
  check_cost("column", column, cost);
  d_.set_cost(d_.column_variable[column], cost);
}

Status Simplex::solve() {
  ray_.clear();
  d_.start_budget();
  status_ = run();
  extract();
  return status_;
}

Status Simplex::run() {
  double perturbation = kPerturbation;
  bool fresh = false, lost = false;
  for (int round = 0; round < kRounds; ++round) {
    d_.restore_bounds();
    d_.restore_costs();
    d_.factor(fresh);
    d_.compute_values();
    d_.compute_reduced_costs();
    fresh = false;
    Outcome outcome = Outcome::done;
    Ray ray;
    if (!d_.primal_feasible()) {
      make_dual_feasible(d_);
      d_.compute_values();
      outcome = dual_simplex(d_, perturbation, lost, ray);
      if (outcome == Outcome::infeasible && keep_farkas(ray.rho)) return Status::infeasible;
    } else if (!d_.dual_feasible()) {
      outcome = primal_simplex(d_, perturbation, ray);
      if (outcome == Outcome::unbounded && !d_.bounds_changed) {
        keep_direction(ray.entering, ray.direction, ray.w);
        return Status::unbounded;
      }
    } else if (residual_is_small()) {
      return Status::optimal;
    } else {
      fresh = true;
      continue;
    }
    if (outcome == Outcome::spent) return Status::work_limit;
    if (outcome != Outcome::done) fresh = true;
    lost = outcome == Outcome::lost;
    perturbation = round < kRounds / 2 ? perturbation * kLessEachRound : 0.0;
  }
  return Status::numerical;
}

// Of A x - r = 0, against the size of its terms.
bool Simplex::residual_is_small() {
  std::vector<double> sum(static_cast<std::size_t>(rows()), 0.0), size(sum.size(), 1.0);
  for (int v = 0; v < d_.variables(); ++v) {
    if (d_.value[v] == 0.0) continue;
    for (const Entry& e : d_.column(v)) {
      sum[e.index] += e.value * d_.value[v];
      size[e.index] += std::abs(e.value * d_.value[v]);
    }
  }
  for (std::size_t i = 0; i < sum.size(); ++i)
    if (std::abs(sum[i]) > 1e-9 * size[i]) return false;
  return true;
}

bool Simplex::keep_farkas(const SparseVector& rho) {
  const int sign = d_.excludes_zero(rho);
  if (sign == 0) return false;
  ray_.assign(static_cast<std::size_t>(rows()), 0.0);
  for (const std::int32_t i : rho.index) ray_[i] = -sign * rho.value[i] * d_.scaling.row[i];
  return true;
}

void Simplex::keep_direction(int entering, int direction, const SparseVector& w) {
  ray_.assign(static_cast<std::size_t>(columns()), 0.0);
  const auto set = [&](int v, double by) {
    if (d_.line[v] >= 0) ray_[d_.line[v]] = by * d_.unit(v);
  };
  set(entering, direction);
  for (const std::int32_t p : w.index) {
    const int v = d_.basis.variable(p);
    const double by = -direction * w.value[p];
    const bool ends = by > 0.0 ? d_.upper[v] < kInfinity : d_.lower[v] > -kInfinity;
    if (!ends) set(v, by);  // else the ratio test found it to be rounding
  }
}

void Simplex::extract() {
  const auto column_count = static_cast<std::size_t>(columns()), row_count = static_cast<std::size_t>(rows());
  primal_.resize(column_count), reduced_.resize(column_count);
  row_activity_.resize(row_count), duals_.resize(row_count);
  objective_ = 0.0;
  for (int v = 0; v < d_.variables(); ++v) {
    const double u = d_.unit(v), value = d_.value[v] * u, reduced = d_.reduced[v] / u;
    if (const int l = d_.line[v]; l >= 0) {
      primal_[l] = value, reduced_[l] = reduced;
      objective_ += d_.given_cost[v] * d_.value[v];
    } else {
      row_activity_[~l] = value, duals_[~l] = reduced;
    }
  }
}

}  // namespace hetsp::lp
