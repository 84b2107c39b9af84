// The query side of a backward tile: q, dout, lse and delta of up to kTile rows of one head, in both layouts.
#pragma once

#include <cmath>
#include <limits>

#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cpu {

template <class Element, class Acc>
class BackwardRows {
 public:
  explicit BackwardRows(const BackwardParams& params)
      : p_(params),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        factors_(score_factors(params.score)),
        scratch_(kTile * (2 * padded(dim_) + 2 * padded(dim_v_) + 3)) {
    q_ = scratch_.take(kTile * padded(dim_));
    q_t_ = scratch_.take(kTile * dim_);
    dout_ = scratch_.take(kTile * padded(dim_v_));
    dout_t_ = scratch_.take(kTile * dim_v_);
    lse_high_ = scratch_.take(kTile);
    lse_low_ = scratch_.take(kTile);
    delta_ = scratch_.take(kTile);
  }

  void load_rows(RowRange range, std::int64_t head) {
    rows_ = range.end - range.begin;
    lanes_ = padded(rows_);
    load<Element>(p_.q, range, head, dim_, padded(dim_), q_);
    if (p_.out_is_acc) {
      load<Acc>(p_.dout, range, head, dim_v_, padded(dim_v_), dout_);
    } else {
      load<Element>(p_.dout, range, head, dim_v_, padded(dim_v_), dout_);
    }
    transpose(q_, rows_, lanes_, dim_, padded(dim_), factors_.q, q_t_);
    transpose(dout_, rows_, lanes_, dim_v_, padded(dim_v_), 1.0, dout_t_);
    load_statistics(range, head);
  }

  // The fields of a tile that depend on the rows alone.
  [[nodiscard]] BackwardTile<Acc> tile() const {
    BackwardTile<Acc> tile{};
    tile.lanes = lanes_, tile.rows = rows_;
    tile.dim = dim_, tile.dim_v = dim_v_, tile.dim_pad = padded(dim_), tile.dim_v_pad = padded(dim_v_);
    tile.q_t = q_t_, tile.dout_t = dout_t_, tile.q = q_, tile.dout = dout_;
    tile.cap = static_cast<Acc>(factors_.cap);
    tile.lse_high = lse_high_, tile.lse_low = lse_low_, tile.delta = delta_;
    return tile;
  }

  [[nodiscard]] bool nonfinite() const {
    return has_nonfinite(q_, rows_ * padded(dim_)) || has_nonfinite(dout_, rows_ * padded(dim_v_)) ||
           has_nonfinite(delta_, rows_);
  }

 private:
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
  const std::int64_t dim_, dim_v_;
  const ScoreFactors factors_;
  Scratch<Acc> scratch_;
  Acc *q_, *q_t_, *dout_, *dout_t_, *lse_high_, *lse_low_, *delta_;
  std::int64_t rows_ = 0, lanes_ = 0;
};

}  // namespace hetsp::attention::cpu
