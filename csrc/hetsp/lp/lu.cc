#include "hetsp/lp/lu.h"

namespace hetsp::lp {

const Factors& Lu::factor(std::span<const std::span<const Entry>> columns) {
  work_ += markowitz_.eliminate(columns, factors_);
  pivot_row_.resize(columns.size());
  for (const auto& pivot : factors_.pivots) pivot_row_[pivot.column] = pivot.row;
  // From here on a column is the row of its pivot.
  for (const auto& line : factors_.upper)
    for (auto k = line.begin; k < line.end; ++k) {
      Entry& entry = factors_.upper_entries[static_cast<std::size_t>(k)];
      entry.index = pivot_row_[entry.index];
    }
  transpose_lower();
  transpose_upper();
  work_ += nonzeros();
  return factors_;
}

void Lu::transpose_lower() {
  Packed& t = lower_rows_;
  t.start.assign(factors_.pivots.size() + 1, 0);
  for (const Entry& entry : factors_.lower_entries) ++t.start[entry.index + 1];
  for (std::size_t i = 1; i < t.start.size(); ++i) t.start[i] += t.start[i - 1];
  t.entries.resize(factors_.lower_entries.size());
  std::vector<std::int64_t> next(t.start.begin(), t.start.end() - 1);
  for (std::size_t k = 0; k < factors_.pivots.size(); ++k)
    for (auto e = factors_.lower[k].begin; e < factors_.lower[k].end; ++e) {
      const Entry entry = factors_.lower_entries[static_cast<std::size_t>(e)];
      t.entries[static_cast<std::size_t>(next[entry.index]++)] = {factors_.pivots[k].row, entry.value};
    }
}

void Lu::transpose_upper() {
  Packed& t = upper_columns_;
  t.start.assign(factors_.pivots.size() + 1, 0);
  for (const auto& line : factors_.upper)
    for (auto e = line.begin; e < line.end; ++e) ++t.start[factors_.upper_entries[static_cast<std::size_t>(e)].index + 1];
  for (std::size_t i = 1; i < t.start.size(); ++i) t.start[i] += t.start[i - 1];
  t.entries.resize(static_cast<std::size_t>(t.start.back()));
  std::vector<std::int64_t> next(t.start.begin(), t.start.end() - 1);
  for (std::size_t k = 0; k < factors_.pivots.size(); ++k)
    for (auto e = factors_.upper[k].begin; e < factors_.upper[k].end; ++e) {
      const Entry entry = factors_.upper_entries[static_cast<std::size_t>(e)];
      t.entries[static_cast<std::size_t>(next[entry.index]++)] = {factors_.pivots[k].row, entry.value};
    }
}

void Lu::ftran(std::span<double> x) const {
  const std::size_t size = factors_.pivots.size();
  work_ += static_cast<std::int64_t>(2 * size);
  for (std::size_t k = 0; k < size; ++k) {
    const double t = x[factors_.pivots[k].row];
    const auto [begin, end] = factors_.lower[k];
    if (t == 0.0 || begin == end) continue;
    for (auto e = begin; e < end; ++e) {
      const Entry& entry = factors_.lower_entries[static_cast<std::size_t>(e)];
      x[entry.index] -= entry.value * t;
    }
    work_ += end - begin;
  }
  for (std::size_t k = size; k-- > 0;) {
    const auto& pivot = factors_.pivots[k];
    double& t = x[pivot.row];
    if (t == 0.0) continue;
    t /= pivot.value;
    const auto line = upper_columns_[pivot.row];
    for (const Entry& entry : line) x[entry.index] -= entry.value * t;
    work_ += static_cast<std::int64_t>(line.size());
  }
}

void Lu::btran(std::span<double> y) const {
  const std::size_t size = factors_.pivots.size();
  work_ += static_cast<std::int64_t>(2 * size);
  for (std::size_t k = 0; k < size; ++k) {
    const auto& pivot = factors_.pivots[k];
    double& t = y[pivot.row];
    if (t == 0.0) continue;
    t /= pivot.value;
    const auto [begin, end] = factors_.upper[k];
    for (auto e = begin; e < end; ++e) {
      const Entry& entry = factors_.upper_entries[static_cast<std::size_t>(e)];
      y[entry.index] -= entry.value * t;
    }
    work_ += end - begin;
  }
  for (std::size_t k = size; k-- > 0;) {
    const int row = factors_.pivots[k].row;
    const double t = y[row];
    const auto line = lower_rows_[row];
    if (t == 0.0 || line.empty()) continue;
    for (const Entry& entry : line) y[entry.index] -= entry.value * t;
    work_ += static_cast<std::int64_t>(line.size());
  }
}

}  // namespace hetsp::lp
