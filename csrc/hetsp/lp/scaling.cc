#include "hetsp/lp/scaling.h"

#include <algorithm>
#include <cmath>

namespace hetsp::lp {

namespace {

constexpr int kSweeps = 4;
constexpr double kNearLow = 0.1, kNearHigh = 10.0;  // entries within are not worth scaling

double power_of_two(double value) {
  return std::ldexp(1.0, std::clamp(static_cast<int>(std::lround(std::log2(value))), -40, 40));
}

struct Range {
  double least = kInfinity, most = 0.0;
  void add(double value) {
    if (value == 0.0) return;
    least = std::min(least, value), most = std::max(most, value);
  }
  [[nodiscard]] double factor() const { return most == 0.0 ? 1.0 : 1.0 / std::sqrt(least * most); }
  [[nodiscard]] bool near() const { return most == 0.0 || (least >= kNearLow && most <= kNearHigh); }
};

}  // namespace

Scaling scale(const Model& model) {
  Scaling s{std::vector<double>(model.row_lower.size(), 1.0), std::vector<double>(model.cost.size(), 1.0)};
  Range all;
  for (const Entry& entry : model.entries) all.add(std::abs(entry.value));
  if (all.near()) return s;
  std::vector<Range> rows(s.row.size());
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    std::fill(rows.begin(), rows.end(), Range{});
    for (int j = 0; j < model.columns(); ++j)
      for (const Entry& entry : model.column(j)) rows[entry.index].add(std::abs(entry.value) * s.column[j]);
    for (std::size_t i = 0; i < rows.size(); ++i) s.row[i] = rows[i].factor();
    for (int j = 0; j < model.columns(); ++j) {
      Range column;
      for (const Entry& entry : model.column(j)) column.add(std::abs(entry.value) * s.row[entry.index]);
      s.column[j] = column.factor();
    }
  }
  for (double& factor : s.row) factor = power_of_two(factor);
  for (double& factor : s.column) factor = power_of_two(factor);
  return s;
}

double scale_of(std::span<const Entry> entries, std::span<const double> others) {
  Range range;
  for (const Entry& entry : entries) range.add(std::abs(entry.value) * others[entry.index]);
  return range.near() ? 1.0 : power_of_two(range.factor());
}

}  // namespace hetsp::lp
