// A case's keys cut into pieces of their own memory and strides, which may be hidden until they "arrive".
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include "attention/attention_call.h"
#include "attention/attention_case.h"
#include "hetsp/attention/pieces.h"

namespace attention_case {

class Cut {
 public:
  std::vector<KeyPiece> list;
  std::int64_t patience_ns = std::int64_t{60} * 1'000'000'000;

  // A piece's array as `make` wants it: random_array, or one that a copy engine takes.
  template <class Make>
  Cut(const Case& c, const std::vector<std::int64_t>& rows, const Make& make) {
    const Shape& s = c.shape;
    std::int64_t begin = 0;
    for (const std::int64_t own : rows) {
      k_.push_back(make(own, s.head_dim)), v_.push_back(make(own, s.head_dim_v));
      copy(c.k, begin, k_.back(), own, s.heads_kv, s.head_dim);
      copy(c.v, begin, v_.back(), own, s.heads_kv, s.head_dim_v);
      list.push_back({k_.back().view(), v_.back().view(), own, nullptr, 0});
      begins_.push_back(begin);
      begin += own;
    }
    heads_kv_ = s.heads_kv, dims_ = {s.head_dim, s.head_dim_v};
  }
  Cut(const Case& c, Random& random, const std::vector<std::int64_t>& rows)
      : Cut(c, rows, [&](std::int64_t own, std::int64_t dim) {
          return random_array(random, c.shape.dtype, own, c.shape.heads_kv, dim, false);
        }) {}
  Cut(const Case& c, Random& random, int count) : Cut(c, random, random_rows(c.shape.total_k, random, count)) {}

  static std::vector<std::int64_t> random_rows(std::int64_t total, Random& random, int count) {
    std::vector<std::int64_t> rows;
    for (int left = count; left > 1; --left) {
      rows.push_back(random.chance(20) ? 0 : random.between(0, total));
      total -= rows.back();
    }
    rows.push_back(total);
    return rows;
  }

  [[nodiscard]] PiecesParams params(const Case& c, Output& output) const {
    return {forward_params(c, output), list.data(), static_cast<int>(list.size()), patience_ns, nullptr};
  }
  [[nodiscard]] Array memory_between(const Case& c) const {
    const Shape& s = c.shape;
    if (list.size() == 1 || c.out_is_acc) return {};
    return {c.acc(), s.total_q, s.heads, s.head_dim_v, s.heads * s.head_dim_v, s.head_dim_v};
  }
  [[nodiscard]] std::vector<Segment> segments(const Case& c, int index) const {
    std::vector<Segment> cut = c.segments;
    const auto i = static_cast<std::size_t>(index);
    for (Segment& s : cut) s = cut_to_piece(s, begins_[i], list[i].rows);
    return cut;
  }

  // Whoever reads the pieces now reads NaN.
  void hide() {
    for (std::size_t i = 0; i < list.size(); ++i) {
      kept_.push_back({k_[i].values(), v_[i].values()});
      write(k_[i], list[i].rows, dims_.head_dim, [](std::size_t) { return kNaN; });
      write(v_[i], list[i].rows, dims_.head_dim_v, [](std::size_t) { return kNaN; });
    }
  }
  void show(std::size_t i) {
    write(k_[i], list[i].rows, dims_.head_dim, [&](std::size_t at) { return kept_[i][0][at]; });
    write(v_[i], list[i].rows, dims_.head_dim_v, [&](std::size_t at) { return kept_[i][1][at]; });
  }

 private:
  static void copy(const Array& from, std::int64_t begin, Array& to, std::int64_t rows, std::int64_t heads, std::int64_t dim) {
    for (std::int64_t t = 0; t < rows; ++t)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < dim; ++i) to.set(t, h, i, from.at(begin + t, h, i));
  }
  template <class Number>
  void write(Array& array, std::int64_t rows, std::int64_t dim, const Number& number) const {
    std::size_t at = 0;
    for (std::int64_t t = 0; t < rows; ++t)
      for (std::int64_t h = 0; h < heads_kv_; ++h)
        for (std::int64_t i = 0; i < dim; ++i) array.set(t, h, i, number(at++));
  }

  std::deque<Array> k_, v_;
  std::vector<std::int64_t> begins_;
  std::vector<std::vector<std::vector<double>>> kept_;
  std::int64_t heads_kv_ = 0;
  Dims dims_{};
};

}  // namespace attention_case
