// The query side of a backward tile: q, dout, lse and delta of up to kTile rows of one head, in the lanes and pairs forms.
#pragma once

#include <cmath>
#include <limits>

#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cpu {

template <class Element>
class BackwardRows {
 public:
  using Acc = typename AccOf<Element>::type;

  BackwardRows(const BackwardParams& params, const TileMath<Element>& math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        factors_(score_factors(params.score)),
        scratch_(bytes()) {
    q_ = scratch_.take(math_.rows_bytes(dim_));
    q_t_ = scratch_.take(math_.lanes_bytes(dim_));
    dout_ = scratch_.take(math_.rows_bytes(dim_v_));
    dout_t_ = scratch_.take(math_.lanes_bytes(dim_v_));
    lse_high_ = scratch_.take<Acc>(kTile);
    lse_low_ = scratch_.take<Acc>(kTile);
    delta_ = scratch_.take<Acc>(kTile);
  }

  void load_rows(RowRange range, std::int64_t head) {
    range_ = range, head_ = head;
    rows_ = range.end - range.begin;
    lanes_ = padded(rows_);
    const Element* q = row<Element>(p_.q, range.begin, head);
    math_.element.pack_lanes(q, p_.q.token_stride, rows_, lanes_, dim_, factors_.q, q_t_);
    math_.element.pack_pairs(q, p_.q.token_stride, rows_, dim_, q_);
    with_dout([&](const auto& move, const auto* dout) {
      move.pack_lanes(dout, p_.dout.token_stride, rows_, lanes_, dim_v_, 1.0, dout_t_);
      move.pack_pairs(dout, p_.dout.token_stride, rows_, dim_v_, dout_);
    });
    load_statistics(range, head);
  }

  // The fields of a tile that depend on the rows alone.
  [[nodiscard]] BackwardTile<Acc> tile() const {
    BackwardTile<Acc> tile{};
    tile.lanes = lanes_, tile.rows = rows_;
    tile.dim = dim_, tile.dim_v = dim_v_;
    tile.q = q_t_, tile.dout = dout_t_, tile.q_pairs = q_, tile.dout_pairs = dout_;
    tile.factor = static_cast<Acc>(factors_.q);
    tile.cap = static_cast<Acc>(factors_.cap);
    tile.lse_high = lse_high_, tile.lse_low = lse_low_, tile.delta = delta_;
    return tile;
  }

  [[nodiscard]] bool nonfinite() const {
    bool found = math_.element.nonfinite(row<Element>(p_.q, range_.begin, head_), p_.q.token_stride, rows_, dim_);
    with_dout([&](const auto& move, const auto* dout) { found |= move.nonfinite(dout, p_.dout.token_stride, rows_, dim_v_); });
    return found || math_.acc.nonfinite(delta_, 0, 1, rows_);
  }

 private:
  [[nodiscard]] std::size_t bytes() const {
    return math_.rows_bytes(dim_) + math_.lanes_bytes(dim_) + math_.rows_bytes(dim_v_) + math_.lanes_bytes(dim_v_) +
           carved(3 * kTile * sizeof(Acc));
  }

  // Calls body(move, rows) with the type that dout has.
  template <class Body>
  void with_dout(const Body& body) const {
    if (p_.out_is_acc) return body(math_.acc, row<Acc>(p_.dout, range_.begin, head_));
    body(math_.element, row<Element>(p_.dout, range_.begin, head_));
  }

  // lse in base 2 needs more digits than an Acc has: a second rounding of a number near 12 would shift every weight of
  // the row by up to 5e-7 in float. +inf for rows without keys and for padding gives weights 0.
  void load_statistics(RowRange range, std::int64_t head) {
    constexpr Acc kInf = std::numeric_limits<Acc>::infinity();
    for (std::int64_t lane = rows_; lane < lanes_; ++lane) lse_high_[lane] = kInf, lse_low_[lane] = 0, delta_[lane] = 0;
    const std::int64_t at = head * p_.shape.total_q + range.begin;
    for (std::int64_t lane = 0; lane < rows_; ++lane) {
      const Acc lse = static_cast<const Acc*>(p_.lse)[at + lane];
      const double base_2 = lse * kLog2E;
      const bool finite = std::isfinite(lse);
      lse_high_[lane] = lse == -kInf ? kInf : static_cast<Acc>(base_2);
      lse_low_[lane] = finite ? static_cast<Acc>(base_2 - static_cast<double>(lse_high_[lane])) : Acc(0);
      delta_[lane] = static_cast<const Acc*>(p_.delta)[at + lane];
    }
  }

  const BackwardParams& p_;
  const TileMath<Element> math_;
  const std::int64_t dim_, dim_v_;
  const ScoreFactors factors_;
  Scratch scratch_;
  void *q_, *q_t_, *dout_, *dout_t_;
  Acc *lse_high_, *lse_low_, *delta_;
  RowRange range_{};
  std::int64_t head_ = 0;
  std::int64_t rows_ = 0, lanes_ = 0;
};

}  // namespace hetsp::attention::cpu
