// Random sparse square matrices and products with them, the obvious way.
#pragma once

#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "hetsp/lp/model.h"

namespace lp_test {

using Columns = std::vector<std::vector<hetsp::lp::Entry>>;

// A permuted triangle with `extra` entries per column more, diagonal sizes over a few orders of magnitude: never singular by
// pattern, rarely by value.
inline Columns random_matrix(std::mt19937_64& random, int size, double extra) {
  std::normal_distribution<double> normal;
  std::vector<std::int32_t> rows(static_cast<std::size_t>(size));
  for (int i = 0; i < size; ++i) rows[i] = i;
  std::shuffle(rows.begin(), rows.end(), random);
  Columns columns(rows.size());
  for (int c = 0; c < size; ++c) {
    columns[c].push_back({rows[c], std::ldexp(1.0 + std::abs(normal(random)), static_cast<int>(random() % 7) - 3)});
    for (int i = 0; i < size; ++i)
      if (i != c && std::bernoulli_distribution(std::min(1.0, extra / size))(random))
        columns[c].push_back({rows[i], normal(random)});
  }
  std::shuffle(columns.begin(), columns.end(), random);
  return columns;
}

inline std::vector<std::span<const hetsp::lp::Entry>> spans(const Columns& columns) { return {columns.begin(), columns.end()}; }

inline std::vector<double> times(const Columns& columns, const std::vector<double>& x) {
  std::vector<double> y(columns.size(), 0.0);
  for (std::size_t c = 0; c < columns.size(); ++c)
    for (const auto& e : columns[c]) y[e.index] += e.value * x[c];
  return y;
}

inline std::vector<double> transposed_times(const Columns& columns, const std::vector<double>& y) {
  std::vector<double> x(columns.size(), 0.0);
  for (std::size_t c = 0; c < columns.size(); ++c)
    for (const auto& e : columns[c]) x[c] += e.value * y[e.index];
  return x;
}

inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0.0, size = 1.0;
  for (std::size_t i = 0; i < a.size(); ++i)
    worst = std::max(worst, std::abs(a[i] - b[i])), size = std::max(size, std::abs(b[i]));
  return worst / size;
}

}  // namespace lp_test
