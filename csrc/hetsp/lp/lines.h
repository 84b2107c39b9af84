// Sparse lines in one pool: the columns of a matrix, or its rows. New lines and longer lines cost their own length only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/lp/model.h"

namespace hetsp::lp {

class Lines {
 public:
  [[nodiscard]] int count() const { return static_cast<int>(lines_.size()); }
  // Valid until the next change.
  [[nodiscard]] std::span<const Entry> operator[](int line) const {
    const Line& l = lines_[line];
    return {pool_.data() + l.begin, static_cast<std::size_t>(l.size)};
  }
  int add(std::span<const Entry> entries = {});
  // Moves the line to the end of the pool when it is full, with room for as much again.
  void append(int line, Entry entry);

 private:
  struct Line {
    std::int64_t begin;
    std::int32_t size, capacity;
  };
  std::vector<Line> lines_;
  std::vector<Entry> pool_;
};

}  // namespace hetsp::lp
