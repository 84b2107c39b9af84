// A linear programme as a caller states it:
//
//   minimise cost x   subject to   row_lower <= A x <= row_upper,   lower <= x <= upper,
//
// with A by columns. Any bound may be infinite; equal bounds make an equality or a fixed column.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace hetsp::lp {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Entry {
  std::int32_t index = 0;  // a row in a column, a column in a row
  double value = 0.0;
};

struct Model {
  std::vector<double> cost, lower, upper;      // [columns]
  std::vector<double> row_lower, row_upper;    // [rows]
  std::vector<std::int64_t> start = {0};       // [columns + 1] column j is entries[start[j], start[j + 1])
  std::vector<Entry> entries;                  // no row twice in a column

  [[nodiscard]] int columns() const { return static_cast<int>(cost.size()); }
  [[nodiscard]] int rows() const { return static_cast<int>(row_lower.size()); }
  [[nodiscard]] std::span<const Entry> column(int j) const {
    return std::span(entries).subspan(static_cast<std::size_t>(start[j]), static_cast<std::size_t>(start[j + 1] - start[j]));
  }
  int add_row(double below, double above);  // without entries; returns its index
  int add_column(double column_cost, double below, double above, std::span<const Entry> column_entries);
};

// Throws InvalidArgument naming the array that has the wrong size, or the value that is NaN, infinite where it must not be, an
// index out of range or twice in one line, or bounds that are crossed.
void check(const Model& model);

// The parts of it that additions and changes share. `what`: such as "column 3"; `indices`: what an entry may name.
void check_cost(const char* what, int index, double cost);
void check_bounds(const char* what, int index, double lower, double upper);
void check_entries(const char* what, int index, std::span<const Entry> entries, int indices);

}  // namespace hetsp::lp
