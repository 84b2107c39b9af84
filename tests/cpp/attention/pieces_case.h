// A problem's keys cut into pieces, each with memory and strides of its own, that may be hidden until they "arrive".
#pragma once

#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "attention/problem.h"
#include "hetsp/attention/pieces.h"

namespace attention_test {

class Pieces {
 public:
  std::vector<KeyPiece> list;

  Pieces(const Problem& p, const std::vector<std::int64_t>& rows, unsigned layouts = 0) {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < rows.size(); ++i, layouts /= 2) {
      const bool head_major = layouts % 2 != 0;
      for (const bool values : {false, true}) {
        const Rows& from = values ? p.v : p.k;
        Rows& to = (values ? v_ : k_).emplace_back(p.shape.dtype, rows[i], p.shape.heads_kv, from.dim(), head_major);
        for (std::int64_t token = 0; token < rows[i]; ++token)
          for (std::int64_t head = 0; head < p.shape.heads_kv; ++head)
            for (std::int64_t x = 0; x < from.dim(); ++x) to.set(token, head, x, from.get(begin + token, head, x));
      }
      list.push_back({k_.back().const_view(), v_.back().const_view(), rows[i], nullptr, 0});
      begins_.push_back(begin);
      begin += rows[i];
    }
  }
  Pieces(const Problem& p, std::mt19937& random, int count = 0)
      : Pieces(p, cut(p.shape.total_k, random, count == 0 ? static_cast<int>(1 + random() % 5) : count), random()) {}

  [[nodiscard]] std::vector<Segment> segments(const Problem& p, int index) const {
    std::vector<Segment> all = p.segments;
    const auto i = static_cast<std::size_t>(index);
    for (Segment& s : all) s = cut_to_piece(s, begins_[i], list[i].rows);
    return all;
  }

  void wait_for(const std::uint32_t* flags, std::uint32_t epoch) {
    for (std::size_t i = 0; i < list.size(); ++i) list[i].ready = flags + i, list[i].epoch = epoch;
  }
  // Whoever reads them now reads NaN.
  void hide() {
    for (std::deque<Rows>* of : {&k_, &v_})
      for (Rows& rows : *of) {
        hidden_.push_back(numbers(rows));
        rows.fill([] { return kNan; });
      }
  }
  void show(std::size_t piece) {
    restore(k_[piece], hidden_[piece]);
    restore(v_[piece], hidden_[k_.size() + piece]);
  }

 private:
  static std::vector<std::int64_t> cut(std::int64_t total, std::mt19937& random, int count) {
    std::vector<std::int64_t> rows;
    for (int left = count; left > 1; --left) {
      const std::int64_t own = random() % 4 == 0 ? 0 : static_cast<std::int64_t>(random() % static_cast<unsigned>(1 + total));
      rows.push_back(own);
      total -= own;
    }
    rows.push_back(total);
    return rows;
  }
  static std::vector<double> numbers(const Rows& rows) {
    std::vector<double> all(rows.buffer().count());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = rows.buffer().get(i);
    return all;
  }
  static void restore(Rows& rows, const std::vector<double>& numbers) {
    std::size_t i = 0;
    rows.fill([&] { return numbers[i++]; });
  }

  std::deque<Rows> k_, v_;  // addresses stay
  std::vector<std::int64_t> begins_;
  std::vector<std::vector<double>> hidden_;
};

}  // namespace attention_test
