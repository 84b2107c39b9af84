#include "hetsp/lp/pricing.h"

#include <algorithm>

namespace hetsp::lp {

namespace {
constexpr double kDevexLimit = 1e7;    // beyond, the reference frame says little: start a new one
constexpr double kLeastWeight = 1e-4;  // an update that cancels leaves this
}  // namespace

int choose_entering(const Dictionary& d) {
  int best = -1;
  double merit = 0.0;
  for (int v = 0; v < d.variables(); ++v) {
    const double attraction = d.attraction(v);
    if (attraction == 0.0) continue;
    // A free variable leaves for good once it is basic.
    const double m = attraction * attraction / d.devex[v] * (d.place[v] == Place::free ? 1e6 : 1.0);
    if (m > merit) merit = m, best = v;
  }
  return best;
}

int choose_leaving(const Dictionary& d) {
  int best = -1;
  double merit = 0.0;
  for (int p = 0; p < d.basis.size(); ++p) {
    const int v = d.basis.variable(p);
    const double infeasibility = d.infeasibility(v);
    if (infeasibility == 0.0) continue;
    const double m = infeasibility * infeasibility / d.edge[v];
    if (m > merit) merit = m, best = p;
  }
  return best;
}

void update_devex(Dictionary& d, int position, int entering, const SparseVector& alpha) {
  const double pivot = alpha.value[entering];
  const double weight = d.devex[entering] / (pivot * pivot);
  for (const std::int32_t v : alpha.index) d.devex[v] = std::max(d.devex[v], alpha.value[v] * alpha.value[v] * weight);
  const double leaving = std::max(weight, 1.0);
  d.devex[d.basis.variable(position)] = leaving;
  if (leaving > kDevexLimit) std::fill(d.devex.begin(), d.devex.end(), 1.0);
}

void update_edge(Dictionary& d, int position, int entering, const SparseVector& w, const SparseVector& rho,
                 const SparseVector& tau) {
  double weight = 0.0;  // exact, whatever the updates have made of it
  for (const std::int32_t i : rho.index) weight += rho.value[i] * rho.value[i];
  const double pivot = w.value[position];
  for (const std::int32_t p : w.index) {
    if (p == position) continue;
    const double ratio = w.value[p] / pivot;
    double& at = d.edge[d.basis.variable(p)];
    at = std::max(at + ratio * (ratio * weight - 2.0 * tau.value[p]), kLeastWeight);
  }
  d.edge[entering] = std::max(weight / (pivot * pivot), kLeastWeight);
}

void reset_edge(Dictionary& d) {
  std::fill(d.edge.begin(), d.edge.end(), 1.0);
  d.edge_stale = false;
}

}  // namespace hetsp::lp
