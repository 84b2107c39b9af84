// Gaussian elimination of a sparse square matrix, P B Q = L U, with pivots chosen for sparsity and stability.
//
// Markowitz (1957): among the entries that are at least kThreshold of the largest in their column, take the one that minimises
// (row count - 1)(column count - 1), the fill it may cause; Duff and Reid's limited search looks at the shortest lines only.
// Singletons cost nothing and come first, so a basis that is a permuted triangle is factored without arithmetic.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/lp/model.h"

namespace hetsp::lp {

struct Factors {
  struct Pivot {
    std::int32_t row, column;
    double value;
  };
  struct Line {
    std::int64_t begin, end;
  };
  std::vector<Pivot> pivots;                 // [rows] in the order of elimination
  std::vector<Line> lower, upper;  // [rows] per pivot: its column of L below the unit diagonal, its row of U right of it
  std::vector<Entry> lower_entries;  // index: row
  std::vector<Entry> upper_entries;  // index: column
  std::vector<Factors::Pivot> replaced;  // columns that depend on others: the unit column value * e_row stands for them
};

class Markowitz {
 public:
  // Factors the square matrix of these columns. A column without an acceptable pivot is replaced by -e_row of a row without
  // one. Returns the work: entries visited.
  std::int64_t eliminate(std::span<const std::span<const Entry>> columns, Factors& out);

 private:
  // Doubly linked lists of lines by count, in arrays.
  struct Buckets {
    std::vector<std::int32_t> first, next, previous, count;
    void reset(int size);
    void insert(int line, int c);
    void erase(int line);
    void move(int line, int c) { erase(line), insert(line, c); }
  };
  struct Choice {
    std::int32_t row = -1, column = -1;
    double value = 0.0;
  };
  void load(std::span<const std::span<const Entry>> columns);
  [[nodiscard]] Choice choose();
  void look_at_column(int c, Choice& best, std::int64_t& merit);
  void look_at_row(int r, Choice& best, std::int64_t& merit);
  void pivot(const Choice& choice, Factors& out);
  void update_column(int c, double factor);
  void drop_column(int c);
  void replace_rest(Factors& out);

  int size_ = 0;
  std::int64_t work_ = 0;
  std::vector<std::vector<Entry>> columns_;  // the active submatrix by columns
  std::vector<std::vector<std::int32_t>> rows_;  // and the columns in each of its rows
  Buckets by_row_, by_column_;
  std::vector<double> multiplier_;  // [rows] of the pivot's column, zero elsewhere
  std::vector<std::int32_t> multiplier_rows_, fill_;
  std::vector<std::uint8_t> hit_;
  std::vector<std::uint8_t> row_done_, column_done_;
};

}  // namespace hetsp::lp
