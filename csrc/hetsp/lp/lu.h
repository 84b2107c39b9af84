// Solves with P B Q = L U: x = B^-1 b ("ftran") and y = B^-T c ("btran").
//
// Columns are named by the row of their pivot: after factor(), the caller orders its columns so that column r has its pivot in
// row r, and both solves work in place without a permutation. Both factors are kept by columns and by rows, so that each of the
// four triangular solves skips the pivots whose value is zero; what remains is a scan of the pivots.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/lp/markowitz.h"

namespace hetsp::lp {

class Lu {
 public:
  // The pivots: row, column among `columns`, value; those of dependent columns stand for the unit column -e_row.
  const Factors& factor(std::span<const std::span<const Entry>> columns);
  // x: [rows], in row space; becomes B^-1 x, element r for the column with its pivot in row r.
  void ftran(std::span<double> x) const;
  // y: [rows], element r for the column with its pivot in row r; becomes B^-T y in row space.
  void btran(std::span<double> y) const;

  [[nodiscard]] std::int64_t nonzeros() const {  // of both factors
    return static_cast<std::int64_t>(factors_.pivots.size() + lower_rows_.entries.size() + upper_columns_.entries.size());
  }
  [[nodiscard]] std::int64_t work() const { return work_; }  // entries visited so far

 private:
  struct Packed {
    std::vector<std::int64_t> start;  // [rows + 1]
    std::vector<Entry> entries;
    [[nodiscard]] std::span<const Entry> operator[](int line) const {
      return {entries.data() + start[line], static_cast<std::size_t>(start[line + 1] - start[line])};
    }
  };
  void transpose_lower();
  void transpose_upper();

  Markowitz markowitz_;
  Factors factors_;
  std::vector<std::int32_t> pivot_row_;  // [columns] of the pivot
  Packed lower_rows_;  // line r: of L, with the row of each multiplier's pivot
  Packed upper_columns_;  // line r: of the column with its pivot in row r, above the diagonal
  mutable std::int64_t work_ = 0;
};

}  // namespace hetsp::lp
