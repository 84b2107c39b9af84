// Random linear programmes biased to corners: infinite, equal and zero bounds, duplicated and empty lines, ties in costs, rows
// that repeat others so that vertices are degenerate, wide ranges of magnitude.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "hetsp/lp/model.h"

namespace lp_test {

using hetsp::lp::Entry;
using hetsp::lp::kInfinity;
using hetsp::lp::Model;

class RandomLp {
 public:
  explicit RandomLp(std::uint64_t seed) : random_(seed) {}

  int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool chance(double p) { return std::bernoulli_distribution(p)(random_); }

  double number() {
    switch (integer(0, 5)) {
      case 0:
        return 1.0;
      case 1:
        return -1.0;
      case 2:
        return integer(-3, 3);
      case 3:
        return integer(1, 9);
      case 4:
        return std::normal_distribution<double>()(random_);
      default:
        return wide ? std::ldexp(std::normal_distribution<double>()(random_), integer(-12, 12)) : integer(-20, 20) / 4.0;
    }
  }

  void bounds(double& lower, double& upper) {
    lower = integer(-4, 4), upper = lower + integer(0, 6);
    switch (integer(0, 6)) {
      case 0:
        lower = -kInfinity, upper = kInfinity;
        break;
      case 1:
        lower = 0.0, upper = kInfinity;
        break;
      case 2:
        upper = kInfinity;
        break;
      case 3:
        lower = -kInfinity;
        break;
      case 4:
        upper = lower;
        break;
      case 5:
        lower = 0.0, upper = 1.0;
        break;
      default:
        break;
    }
  }

  std::vector<Entry> entries(int count, double density) {
    std::vector<Entry> result;
    for (int i = 0; i < count; ++i)
      if (chance(density))
        if (const double value = number(); value != 0.0) result.push_back({i, value});
    return result;
  }

  Model model() {
    Model m;
    wide = chance(0.2);
    const int rows = integer(0, chance(0.1) ? 40 : 8), columns = integer(0, chance(0.1) ? 60 : 10);
    const double density = chance(0.5) ? 0.7 : 0.25;
    const bool feasible = chance(0.6), tied = chance(0.3);  // feasible: rows are drawn around a point inside the column bounds
    std::vector<double> activity(static_cast<std::size_t>(rows), 0.0);
    std::vector<Entry> column;
    for (int i = 0; i < rows; ++i) m.add_row(0.0, 0.0);
    for (int j = 0; j < columns; ++j) {
      double lower = 0.0, upper = 0.0;
      bounds(lower, upper);
      if (column.empty() || !chance(0.15)) column = entries(rows, density);  // else a duplicate
      m.add_column(tied ? integer(0, 1) : number(), lower, upper, column);
      const double point = lower > -kInfinity ? lower : upper < kInfinity ? upper : integer(-2, 2);
      for (const Entry& e : column) activity[e.index] += e.value * point;
    }
    for (int i = 0; i < rows; ++i) {
      bounds(m.row_lower[i], m.row_upper[i]);
      if (!feasible) continue;
      const bool tight = chance(0.7);  // through the point: degenerate
      if (m.row_lower[i] > -kInfinity) m.row_lower[i] = activity[i] - (tight ? 0 : integer(0, 3));
      if (m.row_upper[i] < kInfinity)
        m.row_upper[i] = activity[i] + (tight && m.row_lower[i] == -kInfinity ? 0 : integer(0, 3));
    }
    return m;
  }

  bool wide = false;

 private:
  std::mt19937_64 random_;
};

}  // namespace lp_test
