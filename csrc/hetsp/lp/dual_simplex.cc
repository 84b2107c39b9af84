#include "hetsp/lp/dual_simplex.h"

#include <algorithm>
#include <cmath>

#include "hetsp/lp/pricing.h"
#include "hetsp/lp/ratio_test.h"

namespace hetsp::lp {

namespace {

constexpr double kSmallPivot = 1e-6;    // as in the primal method
constexpr double kDisagreement = 1e-7;
constexpr double kNoise = 0.01;  // of an entry: by how much row and column may differ about a small one
constexpr int kRepairs = 3;  // more, and the small pivots that made the basis dependent are likely to come again
constexpr double kZeroStep = 1e-12;

class Dual {
 public:
  Dual(Dictionary& d, double perturbation, Ray& ray) : d_(d), perturbation_(perturbation), ray_(ray) {}

  Outcome run(bool shake) {
    std::int64_t left = 20'000 + 50LL * d_.variables();
    if (d_.edge_stale) reset_edge(d_);
    if (shake) perturb();
    while (left-- > 0 && repairs_ <= kRepairs) {
      if (d_.cancelled()) return Outcome::spent;
      if (d_.basis.due()) refresh();
      const int p = choose_leaving(d_);
      if (p < 0) {
        if (exact_) return Outcome::done;
        d_.compute_values();
        exact_ = true;
        continue;
      }
      if (const auto end = step(p); end != Outcome::done) return end;
      if (d_.spent()) return Outcome::spent;  // after one iteration at least: repeated solves get there
    }
    return Outcome::lost;
  }

 private:
  void refresh() {
    repairs_ += d_.factor(true) > 0;
    d_.compute_reduced_costs();
    make_dual_feasible(d_);
    d_.compute_values();
    exact_ = true;
  }

  // One iteration; done: go on.
  Outcome step(int p) {
    const double infeasibility = d_.infeasibility(d_.basis.variable(p));
    d_.btran_unit(p, rho_);
    d_.compute_row(rho_, alpha_);
    DualStep step = dual_ratio_test(d_, infeasibility, alpha_);
    while (step.entering >= 0) {
      const int q = step.entering;
      d_.ftran_column(q, w_);
      const double pivot = w_.value[p], by_row = alpha_.value[q], apart = std::abs(pivot - by_row);
      const bool small = std::abs(pivot) < kSmallPivot;
      if ((small || apart > kDisagreement * (1.0 + std::abs(pivot))) && d_.basis.updates() > 0) {
        refresh();
        return Outcome::done;
      }
      if (!small || apart <= kNoise * std::abs(by_row)) {
        exchange(p, q, step);
        return Outcome::done;
      }
      // What the fresh factors say in two ways is rounding of a zero. Taken as a pivot it makes the basis singular, whose
      // repair leads back to here.
      alpha_.value[q] = 0.0;
      step = dual_ratio_test(d_, infeasibility, alpha_);
    }
    if (d_.basis.updates() > 0 || !exact_) {
      refresh();
      return Outcome::done;
    }
    ray_.rho = rho_;
    return Outcome::infeasible;
  }

  void exchange(int p, int q, const DualStep& step) {
    const int leaving = d_.basis.variable(p);
    flip(step.flips);
    const bool above = d_.value[leaving] > d_.upper[leaving];
    const double bound = above ? d_.upper[leaving] : d_.lower[leaving];

    // A reduced cost that overran zero by less than its tolerance: shift the cost, so that the dual objective never falls.
    const double pivot = w_.value[p];
    if (d_.reduced[q] != 0.0 && (d_.reduced[q] / pivot > 0.0) != above) {
      d_.cost[q] -= d_.reduced[q];
      d_.reduced[q] = 0.0;
      d_.costs_changed = true;
    }
    const double ratio = d_.reduced[q] / pivot;
    for (const std::int32_t v : alpha_.index) d_.reduced[v] -= ratio * alpha_.value[v];

    const double by = (d_.value[leaving] - bound) / pivot;
    d_.value[q] += by;
    for (const std::int32_t i : w_.index) d_.value[d_.basis.variable(i)] -= by * w_.value[i];

    tau_.reset(d_.rows());
    for (const std::int32_t i : rho_.index) tau_.value[i] = rho_.value[i];
    d_.basis.ftran(tau_);
    update_edge(d_, p, q, w_, rho_, tau_);
    d_.exchange(p, q, above ? Place::upper : Place::lower, w_);
    d_.reduced[leaving] = -ratio;
    exact_ = false;
    stalled_ = std::abs(ratio) <= kZeroStep ? stalled_ + 1 : 0;
    if (stalled_ > 20 + d_.rows() / 4 && perturbation_ > 0.0) perturb();
  }

  // x_B follows all flips with one solve.
  void flip(const std::vector<std::int32_t>& flips) {
    if (flips.empty()) return;
    tau_.reset(d_.rows());
    for (const std::int32_t v : flips) {
      const double before = d_.value[v];
      d_.place[v] = d_.place[v] == Place::lower ? Place::upper : Place::lower;
      d_.place_nonbasic(v);
      for (const Entry& e : d_.column(v)) tau_.value[e.index] += e.value * (d_.value[v] - before);
    }
    d_.basis.ftran(tau_);
    for (const std::int32_t i : tau_.index) d_.value[d_.basis.variable(i)] -= tau_.value[i];
  }

  // Moves costs at random to the side on which they stay dual feasible, so that ties in the ratio test break.
  void perturb() {
    for (int v = 0; v < d_.variables(); ++v) {
      if (d_.place[v] == Place::basic || d_.place[v] == Place::free || d_.lower[v] == d_.upper[v]) continue;
      const double by = perturbation_ * (0.5 + d_.uniform()) * std::max(1.0, std::abs(d_.cost[v]));
      const double to = d_.place[v] == Place::lower ? by : -by;
      d_.cost[v] += to, d_.reduced[v] += to;
    }
    d_.costs_changed = true;
    stalled_ = 0;
  }

  Dictionary& d_;
  const double perturbation_;
  Ray& ray_;
  SparseVector w_, rho_, alpha_, tau_;
  bool exact_ = true;  // values are computed, not updated
  int stalled_ = 0;
  int repairs_ = 0;  // of a basis that had become dependent
};

}  // namespace

void make_dual_feasible(Dictionary& d) {
  for (int v = 0; v < d.variables(); ++v) {
    if (d.attraction(v) == 0.0) continue;
    if (d.boxed(v)) {
      d.place[v] = d.place[v] == Place::lower ? Place::upper : Place::lower;
      d.place_nonbasic(v);
    } else {
      d.cost[v] -= d.reduced[v];
      d.reduced[v] = 0.0;
      d.costs_changed = true;
    }
  }
}

Outcome dual_simplex(Dictionary& d, double perturbation, bool shake, Ray& ray) { return Dual(d, perturbation, ray).run(shake); }

}  // namespace hetsp::lp
