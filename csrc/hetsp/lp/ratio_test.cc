#include "hetsp/lp/ratio_test.h"

#include <algorithm>
#include <cmath>

namespace hetsp::lp {

namespace {

constexpr double kPivot = 1e-9;  // smaller entries of a scaled row or column are rounding

// The bound towards which variable v moves when it changes by -a per unit of the step, and its distance.
struct Stop {
  double room;  // distance to the bound, negative if overrun; infinite if there is none
  double tolerance;
  Place place;
};

Stop stop(const Dictionary& d, int v, double a) {
  const double bound = a > 0.0 ? d.lower[v] : d.upper[v];
  const double room = a > 0.0 ? d.value[v] - bound : bound - d.value[v];
  return {room, std::isfinite(bound) ? d.primal_tolerance(v, bound) : 0.0, a > 0.0 ? Place::lower : Place::upper};
}

}  // namespace

PrimalStep primal_ratio_test(const Dictionary& d, int entering, int direction, const SparseVector& w) {
  double farthest = kInfinity;
  for (const std::int32_t p : w.index) {
    const double a = direction * w.value[p];
    if (std::abs(a) < kPivot) continue;
    const Stop s = stop(d, d.basis.variable(p), a);
    farthest = std::min(farthest, (s.room + s.tolerance) / std::abs(a));
  }
  PrimalStep step;
  const double range = d.upper[entering] - d.lower[entering];
  if (range < kInfinity && range <= farthest) {
    step.kind = PrimalStep::Kind::flip;
    step.length = range;
    return step;
  }
  if (farthest == kInfinity) return step;
  double largest = 0.0;
  for (const std::int32_t p : w.index) {
    const double a = direction * w.value[p];
    if (std::abs(a) <= std::max(largest, kPivot)) continue;
    const Stop s = stop(d, d.basis.variable(p), a);
    const double ratio = s.room / std::abs(a);
    if (ratio > farthest) continue;
    largest = std::abs(a);
    step = {PrimalStep::Kind::exchange, p, s.place, std::max(ratio, 0.0), s.room < 0.0};
  }
  return step;
}

DualStep dual_ratio_test(const Dictionary& d, double infeasibility, const SparseVector& alpha) {
  struct Candidate {
    std::int32_t variable;
    double ratio, relaxed, size, loss;  // relaxed: with tolerance; loss: of slope if flipped
  };
  std::vector<Candidate> left, group;
  const double sign = infeasibility > 0.0 ? 1.0 : -1.0;
  for (const std::int32_t v : alpha.index) {
    const double a = sign * alpha.value[v];
    if (std::abs(a) < kPivot || d.lower[v] == d.upper[v]) continue;
    const bool stops = d.place[v] == Place::free || (d.place[v] == Place::lower ? a > 0.0 : a < 0.0);
    if (!stops) continue;
    const double size = std::abs(a);
    const double slack = d.place[v] == Place::free ? 0.0 : d.place[v] == Place::lower ? d.reduced[v] : -d.reduced[v];
    left.push_back({v, slack / size, (slack + d.dual_tolerance(v)) / size, size, size * (d.upper[v] - d.lower[v])});
  }
  DualStep step;
  double slope = std::abs(infeasibility);
  while (!left.empty()) {
    double farthest = kInfinity, loss = 0.0;
    for (const Candidate& c : left) farthest = std::min(farthest, c.relaxed);
    const auto middle = std::partition(left.begin(), left.end(), [&](const Candidate& c) { return c.ratio > farthest; });
    group.assign(middle, left.end());
    left.erase(middle, left.end());
    for (const Candidate& c : group) loss += c.loss;
    slope -= loss;
    if (slope < 0.0 || left.empty()) break;
    for (const Candidate& c : group) step.flips.push_back(c.variable);
  }
  const auto best = std::max_element(group.begin(), group.end(), [](const Candidate& a, const Candidate& b) {
    return a.size != b.size ? a.size < b.size : a.variable > b.variable;
  });
  if (best != group.end()) step.entering = best->variable;
  return step;
}

}  // namespace hetsp::lp
