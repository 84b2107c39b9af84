#include "hetsp/lp/dictionary.h"

#include <algorithm>
#include <cmath>

namespace hetsp::lp {

namespace {
constexpr double kLeastTolerance = 1e-11;  // in scaled units: below it, rounding decides
}

Dictionary::Dictionary(const Model& model, const Options& options)
    : options_(options), primal_tolerance_(std::max(options.primal_tolerance, kLeastTolerance)) {
  scaling = scale(model);
  const std::vector<double> column_scale = scaling.column;
  scaling.column.clear();
  for (int i = 0; i < model.rows(); ++i) {
    activity_.push_back({i, -1.0});
    row_variable.push_back(add_variable(~i, 0.0, model.row_lower[i] * scaling.row[i], model.row_upper[i] * scaling.row[i]));
    rows_.add();
    place.back() = Place::basic;
    position.back() = i;
    basis.extend(row_variable.back());
  }
  std::vector<Entry> scaled;
  for (int j = 0; j < model.columns(); ++j) {
    const double s = column_scale[j];
    scaling.column.push_back(s);
    scaled.clear();
    const int v = add_variable(j, model.cost[j] * s, model.lower[j] / s, model.upper[j] / s);
    for (const Entry& e : model.column(j)) {
      scaled.push_back({e.index, e.value * s * scaling.row[e.index]});
      rows_.append(e.index, {v, scaled.back().value});
    }
    columns_.add(scaled);
    column_variable.push_back(v);
  }
}

int Dictionary::add_variable(int line_of, double cost_given, double below, double above) {
  const int v = variables();
  for (auto* array : {&lower, &given_lower}) array->push_back(below);
  for (auto* array : {&upper, &given_upper}) array->push_back(above);
  for (auto* array : {&cost, &given_cost}) array->push_back(cost_given);
  for (auto* array : {&value, &reduced}) array->push_back(0.0);
  for (auto* array : {&devex, &edge}) array->push_back(1.0);
  place.push_back(Place::lower);
  position.push_back(-1);
  line.push_back(line_of);
  marked_.push_back(0);
  least_.push_back(0.0), dual_least_.push_back(0.0);
  set_tolerances(v);
  place_nonbasic(v);
  return v;
}

int Dictionary::add_column(double cost_given, double below, double above, std::span<const Entry> entries) {
  const double s = scale_of(entries, scaling.row);
  scaling.column.push_back(s);
  const int v = add_variable(columns(), cost_given * s, below / s, above / s);
  std::vector<Entry> scaled;
  for (const Entry& e : entries) {
    scaled.push_back({e.index, e.value * s * scaling.row[e.index]});
    rows_.append(e.index, {v, scaled.back().value});
  }
  columns_.add(scaled);
  column_variable.push_back(v);
  return columns() - 1;
}

int Dictionary::add_row(double below, double above, std::span<const Entry> entries) {
  const double s = scale_of(entries, scaling.column);
  const int i = rows();
  scaling.row.push_back(s);
  const int v = add_variable(~i, 0.0, below * s, above * s);
  activity_.push_back({i, -1.0});
  rows_.add();
  row_variable.push_back(v);
  for (const Entry& e : entries) {
    const double scaled = e.value * s * scaling.column[e.index];
    columns_.append(e.index, {i, scaled});
    rows_.append(i, {column_variable[e.index], scaled});
  }
  place[v] = Place::basic;
  position[v] = i;
  basis.extend(v);
  return i;
}

double Dictionary::unit(int variable) const {
  const int l = line[variable];
  return l >= 0 ? scaling.column[l] : 1.0 / scaling.row[~l];
}

void Dictionary::set_bounds(int variable, double below, double above) {
  const double u = unit(variable);
  lower[variable] = given_lower[variable] = below / u;
  upper[variable] = given_upper[variable] = above / u;
  place_nonbasic(variable);
}

void Dictionary::set_cost(int variable, double cost_given) {
  cost[variable] = given_cost[variable] = cost_given * unit(variable);
  set_tolerances(variable);
}

std::span<const Entry> Dictionary::column(int variable) const {
  const int l = line[variable];
  return l >= 0 ? columns_[l] : std::span<const Entry>(&activity_[~l], 1);
}

void Dictionary::restore_bounds() {
  if (!bounds_changed) return;
  lower = given_lower, upper = given_upper;
  bounds_changed = false;
}

void Dictionary::restore_costs() {
  if (!costs_changed) return;
  cost = given_cost;
  costs_changed = false;
}

void Dictionary::set_tolerances(int v) {
  const double u = unit(v);
  least_[v] = std::max(options_.primal_tolerance * std::min(1.0, 1.0 / u), kLeastTolerance);
  dual_least_[v] = std::max(
      {options_.dual_tolerance * std::min(1.0, u), kLeastTolerance, options_.dual_tolerance * std::abs(given_cost[v])});
}

double Dictionary::infeasibility(int v) const {
  if (value[v] < lower[v]) return value[v] < lower[v] - primal_tolerance(v, lower[v]) ? value[v] - lower[v] : 0.0;
  if (value[v] > upper[v]) return value[v] > upper[v] + primal_tolerance(v, upper[v]) ? value[v] - upper[v] : 0.0;
  return 0.0;
}

bool Dictionary::primal_feasible() const {
  for (int p = 0; p < basis.size(); ++p)
    if (infeasibility(basis.variable(p)) != 0.0) return false;
  return true;
}

bool Dictionary::dual_feasible() const {
  for (int v = 0; v < variables(); ++v)
    if (attraction(v) != 0.0) return false;
  return true;
}

int Dictionary::factor(bool fresh) {
  if (basis.factored() && (!fresh || basis.updates() == 0)) return 0;
  const auto replaced = basis.factor([this](int v) { return column(v); });
  for (const auto& [p, left] : replaced) {
    const int enters = row_variable[p];
    position[left] = -1;
    place[left] = Place::lower;
    place_nonbasic(left);
    basis.put(p, enters);
    place[enters] = Place::basic;
  }
  for (int p = 0; p < basis.size(); ++p) position[basis.variable(p)] = p;
  return static_cast<int>(replaced.size());
}

void Dictionary::place_nonbasic(int v) {
  if (place[v] == Place::basic) return;
  const bool below = lower[v] > -kInfinity, above = upper[v] < kInfinity;
  if (!below && !above) {
    place[v] = Place::free;
  } else if (place[v] == Place::free || (place[v] == Place::lower && !below) || (place[v] == Place::upper && !above)) {
    // The bound nearer to zero, which disturbs the other variables least.
    place[v] = below && (!above || std::abs(lower[v]) <= std::abs(upper[v])) ? Place::lower : Place::upper;
  }
  value[v] = place[v] == Place::lower ? lower[v] : place[v] == Place::upper ? upper[v] : 0.0;
}

void Dictionary::compute_values() {
  SparseVector x;
  x.reset(rows());
  for (int v = 0; v < variables(); ++v) {
    if (place[v] == Place::basic) continue;
    place_nonbasic(v);
    if (value[v] == 0.0) continue;
    for (const Entry& e : column(v)) x.value[e.index] -= e.value * value[v];
    work_ += static_cast<std::int64_t>(column(v).size());
  }
  work_ += variables();
  basis.ftran(x);
  for (int p = 0; p < basis.size(); ++p) value[basis.variable(p)] = x.value[p];
}

void Dictionary::compute_reduced_costs() {
  SparseVector y;
  y.reset(rows());
  for (int p = 0; p < basis.size(); ++p) y.value[p] = cost[basis.variable(p)];
  basis.btran(y);
  for (int v = 0; v < variables(); ++v) {
    if (place[v] == Place::basic) {
      reduced[v] = 0.0;
      continue;
    }
    double d = cost[v];
    for (const Entry& e : column(v)) d -= e.value * y.value[e.index];
    reduced[v] = d;
    work_ += static_cast<std::int64_t>(column(v).size());
  }
  work_ += variables();
}

void Dictionary::ftran_column(int v, SparseVector& w) const {
  w.reset(rows());
  for (const Entry& e : column(v)) w.value[e.index] = e.value;
  basis.ftran(w);
}

void Dictionary::btran_unit(int p, SparseVector& rho) const {
  rho.reset(rows());
  rho.value[p] = 1.0;
  basis.btran(rho);
}

void Dictionary::compute_row(const SparseVector& rho, SparseVector& alpha) const {
  alpha.reset(variables());
  // A few rows: list what they touch. Many: add densely and list afterwards, which spares a test per entry.
  const bool few = rho.index.size() * 8 < static_cast<std::size_t>(rows());
  for (const std::int32_t i : rho.index) {
    const double r = rho.value[i];
    const auto row = rows_[i];
    for (const Entry& e : row) {
      alpha.value[e.index] += r * e.value;
      if (!few || marked_[e.index]) continue;
      marked_[e.index] = 1;
      alpha.index.push_back(e.index);
    }
    alpha.value[row_variable[i]] = -r;
    if (few) alpha.index.push_back(row_variable[i]);
    work_ += static_cast<std::int64_t>(row.size()) + 1;
  }
  const auto keep = [&](std::int32_t v) {
    if (place[v] != Place::basic) return true;
    alpha.value[v] = 0.0;
    return false;
  };
  if (few) {
    for (const std::int32_t v : alpha.index) marked_[v] = 0;
    std::erase_if(alpha.index, [&](std::int32_t v) { return !keep(v); });
    return;
  }
  for (std::int32_t v = 0; v < variables(); ++v)
    if (alpha.value[v] != 0.0 && keep(v)) alpha.index.push_back(v);
  work_ += variables();
}

int Dictionary::excludes_zero(const SparseVector& rho) const {
  double least = 0.0, most = 0.0, size = 0.0;
  for (int v = 0; v < variables(); ++v) {
    double z = 0.0, terms = 0.0;
    for (const Entry& e : column(v)) z += rho.value[e.index] * e.value, terms += std::abs(rho.value[e.index] * e.value);
    if (std::abs(z) <= 1e-12 * std::max(terms, 1e-3)) continue;  // rounding of a zero
    const double at_lower = z * given_lower[v], at_upper = z * given_upper[v];
    least += std::min(at_lower, at_upper), most += std::max(at_lower, at_upper);
    for (const double term : {at_lower, at_upper}) size += std::isfinite(term) ? std::abs(term) : 0.0;
  }
  work_ += variables();
  const double margin = 1e-12 * size;
  return least > margin ? 1 : most < -margin ? -1 : 0;
}

void Dictionary::exchange(int p, int entering, Place leaving_place, const SparseVector& w) {
  const int leaving = basis.variable(p);
  basis.exchange(p, entering, w);
  place[leaving] = leaving_place;
  position[leaving] = -1;
  place_nonbasic(leaving);
  place[entering] = Place::basic;
  position[entering] = p;
  reduced[entering] = 0.0;
  ++iterations;
}

void Dictionary::start_budget() {
  const std::int64_t now = work();
  const std::int64_t left = std::numeric_limits<std::int64_t>::max() - now;
  budget_end_ = now + std::min(options_.work_limit, left);
}

// xorshift64* (Vigna 2016).
double Dictionary::uniform() {
  random ^= random >> 12, random ^= random << 25, random ^= random >> 27;
  return static_cast<double>((random * 0x2545f4914f6cdd1du) >> 11) * 0x1p-53;
}

}  // namespace hetsp::lp
