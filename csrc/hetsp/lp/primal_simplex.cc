#include "hetsp/lp/primal_simplex.h"

#include <algorithm>
#include <cmath>

#include "hetsp/lp/pricing.h"
#include "hetsp/lp/ratio_test.h"

namespace hetsp::lp {

namespace {

constexpr double kSmallPivot = 1e-6;       // worth a fresh factorisation to see whether it is real
constexpr double kDisagreement = 1e-7;     // of the pivot computed by column and by row, relative
constexpr double kZeroStep = 1e-12;

class Primal {
 public:
  Primal(Dictionary& d, double perturbation, Ray& ray) : d_(d), perturbation_(perturbation), ray_(ray) {}

  Outcome run() {
    std::int64_t left = 20'000 + 50LL * d_.variables();
    while (left-- > 0) {
      if (d_.cancelled()) return Outcome::spent;
      if (d_.basis.due() && !refresh()) return Outcome::lost;
      const int q = choose_entering(d_);
      if (q < 0) {
        if (exact_) return Outcome::done;
        d_.compute_reduced_costs();
        exact_ = true;
        continue;
      }
      if (const auto end = step(q); end != Outcome::done) return end;
      if (d_.spent()) return Outcome::spent;  // after one iteration at least: repeated solves get there
    }
    return Outcome::lost;
  }

 private:
  bool refresh() {
    d_.factor(true);
    d_.compute_values();
    d_.compute_reduced_costs();
    exact_ = true;
    return d_.primal_feasible();
  }

  // One iteration; done: go on.
  Outcome step(int q) {
    d_.ftran_column(q, w_);
    // The reduced cost from the column is exact; the updated one may have drifted over zero.
    double reduced = d_.cost[q];
    for (const std::int32_t p : w_.index) reduced -= d_.cost[d_.basis.variable(p)] * w_.value[p];
    d_.reduced[q] = reduced;
    if (d_.attraction(q) == 0.0) return Outcome::done;
    const int direction = reduced < 0.0 ? 1 : -1;
    const PrimalStep step = primal_ratio_test(d_, q, direction, w_);
    if (step.kind == PrimalStep::Kind::unbounded) {
      if (d_.basis.updates() > 0) return refresh() ? Outcome::done : Outcome::lost;
      ray_.entering = q, ray_.direction = direction, ray_.w = w_;
      return Outcome::unbounded;
    }
    if (step.kind == PrimalStep::Kind::flip) {
      move(q, direction * step.length);
      d_.place[q] = d_.place[q] == Place::lower ? Place::upper : Place::lower;
      d_.place_nonbasic(q);
      ++d_.iterations;
      return Outcome::done;
    }
    return exchange(q, direction, step);
  }

  Outcome exchange(int q, int direction, const PrimalStep& step) {
    const int p = step.position, leaving = d_.basis.variable(p);
    d_.btran_unit(p, rho_);
    d_.compute_row(rho_, alpha_);
    const double pivot = w_.value[p], by_row = alpha_.value[q];
    const bool doubtful = std::abs(pivot) < kSmallPivot || std::abs(pivot - by_row) > kDisagreement * (1.0 + std::abs(pivot));
    if (doubtful && d_.basis.updates() > 0) return refresh() ? Outcome::done : Outcome::lost;

    if (step.overrun) {
      (step.leaves == Place::lower ? d_.lower : d_.upper)[leaving] = d_.value[leaving];
      d_.bounds_changed = true;
    }
    move(q, direction * step.length);
    const double ratio = d_.reduced[q] / pivot;
    for (const std::int32_t v : alpha_.index) d_.reduced[v] -= ratio * alpha_.value[v];
    update_devex(d_, p, q, alpha_);
    d_.exchange(p, q, step.leaves, w_);
    d_.reduced[leaving] = -ratio;
    d_.edge_stale = true;
    exact_ = false;
    stalled_ = step.length <= kZeroStep ? stalled_ + 1 : 0;
    if (stalled_ > 20 + d_.rows() / 4 && perturbation_ > 0.0) perturb();
    return Outcome::done;
  }

  void move(int q, double by) {
    if (by == 0.0) return;
    d_.value[q] += by;
    for (const std::int32_t p : w_.index) d_.value[d_.basis.variable(p)] -= by * w_.value[p];
  }

  // Moves the bounds of the basic variables apart at random, so that ties in the ratio test break and steps become positive.
  void perturb() {
    for (int p = 0; p < d_.basis.size(); ++p) {
      const int v = d_.basis.variable(p);
      d_.lower[v] -=
          perturbation_ * (0.5 + d_.uniform()) * (std::isfinite(d_.lower[v]) ? std::max(1.0, std::abs(d_.lower[v])) : 0.0);
      d_.upper[v] +=
          perturbation_ * (0.5 + d_.uniform()) * (std::isfinite(d_.upper[v]) ? std::max(1.0, std::abs(d_.upper[v])) : 0.0);
    }
    d_.bounds_changed = true;
    stalled_ = 0;
  }

  Dictionary& d_;
  const double perturbation_;
  Ray& ray_;
  SparseVector w_, rho_, alpha_;
  bool exact_ = true;  // reduced costs are computed, not updated
  int stalled_ = 0;
};

}  // namespace

Outcome primal_simplex(Dictionary& d, double perturbation, Ray& ray) { return Primal(d, perturbation, ray).run(); }

}  // namespace hetsp::lp
