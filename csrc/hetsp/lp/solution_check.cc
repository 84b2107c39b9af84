#include "hetsp/lp/solution_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "hetsp/base/error.h"

namespace hetsp::lp {

namespace {

constexpr double kRounding = 1e-11;   // of a sum that should be zero, against the size of its terms
constexpr double kEvaluation = 1e-14;  // what evaluating a sum exactly as written may cost

struct Sum {
  double value = 0.0, size = 0.0;
  void add(double term) { value += term, size += std::abs(term); }
  [[nodiscard]] double rounded() const { return std::abs(value) <= kRounding * size ? 0.0 : value; }
};

std::vector<Sum> activities(const Model& model, std::span<const double> x) {
  std::vector<Sum> rows(model.row_lower.size());
  for (int j = 0; j < model.columns(); ++j)
    for (const Entry& e : model.column(j)) rows[e.index].add(e.value * x[j]);
  return rows;
}

Sum product(std::span<const Entry> column, std::span<const double> y) {
  Sum sum;
  for (const Entry& e : column) sum.add(e.value * y[e.index]);
  return sum;
}

double violation(double value, double lower, double upper) {
  if (value < lower) return (lower - value) / std::max(1.0, std::abs(lower));
  if (value > upper) return (value - upper) / std::max(1.0, std::abs(upper));
  return value == value ? 0.0 : kInfinity;
}

// Of one multiplier with the bounds it prices.
void add_multiplier(Residuals& r, double multiplier, double size, double value, double lower, double upper,
                    double& dual_objective) {
  const double bound = multiplier > 0.0 ? lower : upper;
  if (multiplier == 0.0) return;
  if (std::isinf(bound)) {
    r.dual = std::max(r.dual, std::abs(multiplier) / std::max(1.0, size));
    return;
  }
  dual_objective += multiplier * bound;
  r.complementarity = std::max(r.complementarity, std::abs(multiplier * (value - bound)));
}

void require_sizes(const Model& model, std::size_t x, std::size_t y) {
  require(x == model.cost.size() && y == model.row_lower.size(), "lp: a solution of ", x, " columns and ", y,
          " rows for a programme of ", model.cost.size(), " and ", model.row_lower.size());
}

}  // namespace

double Residuals::worst() const { return std::max({primal, dual, complementarity, gap}); }

Residuals check_solution(const Model& model, std::span<const double> x, std::span<const double> y) {
  require_sizes(model, x.size(), y.size());
  Residuals r;
  double dual_objective = 0.0;
  for (int j = 0; j < model.columns(); ++j) r.objective += model.cost[j] * x[j];
  const auto rows = activities(model, x);
  for (int i = 0; i < model.rows(); ++i) {
    const double slack = kEvaluation * rows[i].size;
    r.primal = std::max(r.primal, violation(rows[i].value, model.row_lower[i] - slack, model.row_upper[i] + slack));
    add_multiplier(r, y[i], 1.0, rows[i].value, model.row_lower[i], model.row_upper[i], dual_objective);
  }
  for (int j = 0; j < model.columns(); ++j) {
    r.primal = std::max(r.primal, violation(x[j], model.lower[j], model.upper[j]));
    Sum d = product(model.column(j), y);
    d.value = model.cost[j] - d.value;
    add_multiplier(r, d.value, std::max(std::abs(model.cost[j]), d.size), x[j], model.lower[j], model.upper[j], dual_objective);
  }
  const double scale = std::max(1.0, std::abs(r.objective));
  r.complementarity /= scale;
  r.gap = std::abs(r.objective - dual_objective) / scale;
  return r;
}

double check_infeasible(const Model& model, std::span<const double> y) {
  require_sizes(model, model.cost.size(), y.size());
  Sum margin;
  for (int i = 0; i < model.rows(); ++i)
    if (y[i] != 0.0) margin.add(y[i] * (y[i] > 0.0 ? model.row_lower[i] : model.row_upper[i]));
  for (int j = 0; j < model.columns(); ++j) {
    const double z = product(model.column(j), y).rounded();
    if (z != 0.0) margin.add(-z * (z > 0.0 ? model.upper[j] : model.lower[j]));
  }
  if (std::isinf(margin.size)) return -kInfinity;
  return margin.size == 0.0 ? 0.0 : margin.value / margin.size;
}

double check_unbounded(const Model& model, std::span<const double> x) {
  require_sizes(model, x.size(), model.row_lower.size());
  double largest = 0.0, rise = 0.0;
  for (int j = 0; j < model.columns(); ++j) largest = std::max(largest, std::abs(x[j])), rise += model.cost[j] * x[j];
  std::vector<double> rate(model.row_lower.size(), 0.0), coefficient(rate.size(), 0.0);
  for (int j = 0; j < model.columns(); ++j)
    for (const Entry& e : model.column(j)) {
      rate[e.index] += e.value * x[j];
      coefficient[e.index] = std::max(coefficient[e.index], std::abs(e.value));
    }
  // A rate counts beyond what an error of kRounding in the largest element would make of it.
  const auto ends = [largest](double speed, double size, double lower, double upper) {
    return std::abs(speed) > kRounding * largest * size && (speed > 0.0 ? upper < kInfinity : lower > -kInfinity);
  };
  for (int j = 0; j < model.columns(); ++j)
    if (ends(x[j], 1.0, model.lower[j], model.upper[j])) return -kInfinity;
  for (int i = 0; i < model.rows(); ++i)
    if (ends(rate[i], coefficient[i], model.row_lower[i], model.row_upper[i])) return -kInfinity;
  return largest == 0.0 ? 0.0 : -rise / largest;
}

}  // namespace hetsp::lp
