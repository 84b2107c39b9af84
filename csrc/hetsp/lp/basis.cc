#include "hetsp/lp/basis.h"

#include "hetsp/base/error.h"

namespace hetsp::lp {

namespace {
constexpr std::size_t kMaxUpdates = 64;
}

void Basis::extend(int variable) {
  head_.push_back(variable);
  factored_ = false;
}

std::vector<Basis::Replaced> Basis::factor(const std::function<std::span<const Entry>(int)>& column) {
  std::vector<std::span<const Entry>> columns;
  columns.reserve(head_.size());
  for (const std::int32_t variable : head_) columns.push_back(column(variable));
  const Factors& factors = lu_.factor(columns);
  const std::vector<std::int32_t> before = head_;
  for (const auto& pivot : factors.pivots) head_[pivot.row] = before[pivot.column];
  std::vector<Replaced> replaced;
  for (const auto& pivot : factors.replaced) replaced.push_back({pivot.row, before[pivot.column]});
  etas_.clear(), eta_entries_.clear();
  factored_ = true;
  return replaced;
}

bool Basis::due() const {
  return etas_.size() >= kMaxUpdates ||
         static_cast<std::int64_t>(eta_entries_.size()) > 4 * lu_.nonzeros() + static_cast<std::int64_t>(4 * head_.size());
}

void Basis::ftran(SparseVector& x) const {
  lu_.ftran(x.value);
  work_ += static_cast<std::int64_t>(etas_.size());
  for (const Eta& eta : etas_) {
    double& at = x.value[eta.position];
    if (at == 0.0) continue;
    at /= eta.pivot;
    for (auto k = eta.begin; k < eta.end; ++k) {
      const Entry& entry = eta_entries_[static_cast<std::size_t>(k)];
      x.value[entry.index] -= entry.value * at;
    }
    work_ += eta.end - eta.begin;
  }
  x.gather();
}

void Basis::btran(SparseVector& y) const {
  for (std::size_t e = etas_.size(); e-- > 0;) {
    const Eta& eta = etas_[e];
    double sum = y.value[eta.position];
    for (auto k = eta.begin; k < eta.end; ++k) {
      const Entry& entry = eta_entries_[static_cast<std::size_t>(k)];
      sum -= entry.value * y.value[entry.index];
    }
    y.value[eta.position] = sum / eta.pivot;
    work_ += eta.end - eta.begin + 1;
  }
  lu_.btran(y.value);
  y.gather();
}

void Basis::exchange(int position, int variable, const SparseVector& w) {
  invariant(w.value[position] != 0.0, "exchange without a pivot at position ", position);
  Eta eta{position, w.value[position], static_cast<std::int64_t>(eta_entries_.size()), 0};
  for (const std::int32_t i : w.index)
    if (i != position) eta_entries_.push_back({i, w.value[i]});
  eta.end = static_cast<std::int64_t>(eta_entries_.size());
  etas_.push_back(eta);
  head_[position] = variable;
}

}  // namespace hetsp::lp
