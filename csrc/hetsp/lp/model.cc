#include "hetsp/lp/model.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::lp {

int Model::add_row(double below, double above) {
  row_lower.push_back(below);
  row_upper.push_back(above);
  return rows() - 1;
}

int Model::add_column(double column_cost, double below, double above, std::span<const Entry> column_entries) {
  cost.push_back(column_cost);
  lower.push_back(below);
  upper.push_back(above);
  entries.insert(entries.end(), column_entries.begin(), column_entries.end());
  start.push_back(static_cast<std::int64_t>(entries.size()));
  return columns() - 1;
}

void check_cost(const char* what, int index, double cost) {
  require(std::isfinite(cost), "lp: the cost of ", what, " ", index, " is ", cost, ", must be finite");
}

void check_bounds(const char* what, int index, double lower, double upper) {
  require(lower < kInfinity && upper > -kInfinity && lower <= upper, "lp: ", what, " ", index, " has bounds ", lower, " .. ",
          upper, ", must be lower <= upper, lower below infinity, upper above -infinity");
}

void check_entries(const char* what, int index, std::span<const Entry> entries, int indices) {
  thread_local std::vector<std::int32_t> seen;
  seen.clear();
  for (const Entry& entry : entries) {
    require(0 <= entry.index && entry.index < indices, "lp: ", what, " ", index, " has an entry at ", entry.index,
            ", must be in 0..", indices - 1);
    require(std::isfinite(entry.value), "lp: ", what, " ", index, " has ", entry.value, " at ", entry.index,
            ", must be finite");
    seen.push_back(entry.index);
  }
  std::sort(seen.begin(), seen.end());
  const auto twice = std::adjacent_find(seen.begin(), seen.end());
  require(twice == seen.end(), "lp: ", what, " ", index, " has two entries at ", twice == seen.end() ? 0 : *twice);
}

void check(const Model& model) {
  const std::size_t columns = model.cost.size();
  require(columns < (std::size_t{1} << 30) && model.row_lower.size() < (std::size_t{1} << 30), "lp: ", columns, " columns and ",
          model.row_lower.size(), " rows, must be below 2^30 each");
  require(model.lower.size() == columns && model.upper.size() == columns, "lp: ", columns, " costs, ", model.lower.size(),
          " lower and ", model.upper.size(), " upper bounds of columns; must be as many");
  require(model.row_upper.size() == model.row_lower.size(), "lp: ", model.row_lower.size(), " lower and ",
          model.row_upper.size(), " upper bounds of rows; must be as many");
  require(model.start.size() == columns + 1 && model.start.front() == 0 &&
              model.start.back() == static_cast<std::int64_t>(model.entries.size()) &&
              std::is_sorted(model.start.begin(), model.start.end()),
          "lp: the ", model.start.size(), " column starts must be ", columns + 1, " that rise from 0 to ",
          model.entries.size());
  for (int i = 0; i < model.rows(); ++i) check_bounds("row", i, model.row_lower[i], model.row_upper[i]);
  for (int j = 0; j < model.columns(); ++j) {
    check_cost("column", j, model.cost[j]);
    check_bounds("column", j, model.lower[j], model.upper[j]);
    check_entries("column", j, model.column(j), model.rows());
  }
}

}  // namespace hetsp::lp
