// A unit of the backward: up to kTile query rows of one head, packed in every form that a tile wants, and their dq. It stays
// while the keys that it sees come by.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/attention/cpu/delta.h"
#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cpu {

template <class Element>
class BackwardUnit {
 public:
  using Acc = typename AccOf<Element>::type;

  static std::size_t bytes(const TileMath<Element>& math, const Shape& shape) {
    const std::int64_t dim = shape.head_dim, dim_v = shape.head_dim_v;
    return carved(math.lanes_bytes(dim)) + carved(math.lanes_bytes(dim_v)) + carved(math.rows_bytes(dim)) +
           carved(math.rows_bytes(dim_v)) + carved(static_cast<std::size_t>(kTile * (dim + 3)) * sizeof(Acc));
  }

  BackwardUnit(const BackwardParams& params, const TileMath<Element>& math, Scratch& scratch)
      : p_(params), math_(math), factors_(score_factors(params.score)) {
    const std::int64_t dim = p_.shape.head_dim, dim_v = p_.shape.head_dim_v;
    q_ = scratch.take(math.lanes_bytes(dim)), dout_ = scratch.take(math.lanes_bytes(dim_v));
    q_pairs_ = scratch.take(math.rows_bytes(dim)), dout_pairs_ = scratch.take(math.rows_bytes(dim_v));
    dq_t_ = scratch.take<Acc>(kTile * dim);
    lse_high_ = scratch.take<Acc>(kTile), lse_low_ = scratch.take<Acc>(kTile), delta_ = scratch.take<Acc>(kTile);
  }

  // Rows that see no key of any segment have dq = 0, and are not read but for their delta.
  void load(RowRange range, std::int64_t head, bool sees_keys) {
    range_ = range, head_ = head, sees_keys_ = sees_keys;
    rows_ = range.end - range.begin, lanes_ = padded(rows_);
    if (p_.fill_delta != nullptr) {
      p_.out_is_acc ? delta_of_rows(delta_params(p_), math_.acc, range, head)
                    : delta_of_rows(delta_params(p_), math_.element, range, head);
    }
    std::fill(dq_t_, dq_t_ + kTile * p_.shape.head_dim, Acc(0));
    if (!sees_keys) return;
    pack(math_.element, row<Element>(p_.q, range.begin, head), p_.q.token_stride, p_.shape.head_dim, factors_.q, q_, q_pairs_);
    with_dout([&](const auto& move, const auto* dout) {
      pack(move, dout, p_.dout.token_stride, p_.shape.head_dim_v, 1.0, dout_, dout_pairs_);
    });
    load_statistics();
  }

  // Whether what hidden pairs multiply by 0 may be infinite or NaN.
  [[nodiscard]] bool nonfinite() const {
    if (math_.pairs_are_rows) {
      const std::int64_t width_q = padded(p_.shape.head_dim), width_dout = padded(p_.shape.head_dim_v);
      return math_.acc.nonfinite(static_cast<const Acc*>(q_pairs_), width_q, rows_, width_q) ||
             math_.acc.nonfinite(static_cast<const Acc*>(dout_pairs_), width_dout, rows_, width_dout) ||
             math_.acc.nonfinite(delta_, 0, 1, rows_);
    }
    bool found = math_.element.nonfinite(row<Element>(p_.q, range_.begin, head_), p_.q.token_stride, rows_, p_.shape.head_dim);
    with_dout([&](const auto& move, const auto* dout) {
      found = found || move.nonfinite(dout, p_.dout.token_stride, rows_, p_.shape.head_dim_v);
    });
    return found || math_.acc.nonfinite(delta_, 0, 1, rows_);
  }

  [[nodiscard]] RowRange range() const { return range_; }
  [[nodiscard]] bool sees_keys() const { return sees_keys_; }

  // The fields of a tile that depend on the rows.
  void describe(BackwardTile<Acc>& tile) const {
    tile.lanes = lanes_, tile.rows = rows_;
    tile.q = q_, tile.dout = dout_, tile.q_pairs = q_pairs_, tile.dout_pairs = dout_pairs_;
    tile.lse_high = lse_high_, tile.lse_low = lse_low_, tile.delta = delta_;
    tile.dq_t = dq_t_;
  }

  void store_dq() const { p_.grads_are_acc ? store(math_.acc) : store(math_.element); }

 private:
  // Both forms of the rows. Where one of them is the rows themselves, the other is made from it: it lies together, and rows of
  // a tensor are a power of two apart, which is a handful of sets of the first-level cache.
  template <class T>
  void pack(const Move<T>& move, const T* from, std::int64_t stride, std::int64_t dim, double factor, void* lanes,
            void* pairs) const {
    move.pack_pairs(from, stride, rows_, dim, pairs);
    if (math_.pairs_are_rows) {
      math_.acc.pack_lanes(static_cast<const Acc*>(pairs), padded(dim), rows_, lanes_, dim, factor, lanes);
    } else {
      move.pack_lanes(from, stride, rows_, lanes_, dim, factor, lanes);
    }
  }

  // Calls body(move, rows) with the type that dout has.
  template <class Body>
  void with_dout(const Body& body) const {
    if (p_.out_is_acc) return body(math_.acc, row<Acc>(p_.dout, range_.begin, head_));
    body(math_.element, row<Element>(p_.dout, range_.begin, head_));
  }

  template <class T>
  void store(const Move<T>& move) const {
    alignas(64) Acc factor[kTile];
    std::fill(factor, factor + kTile, static_cast<Acc>(p_.score.softmax_scale));
    T* dq = row<T>(p_.dq, range_.begin, head_);
    const Store how = store_of<T>(p_.shape.total_q, p_.shape.heads, p_.shape.head_dim);
    move.store_lanes(dq_t_, rows_, p_.shape.head_dim, factor, nullptr, dq, p_.dq.token_stride, how);
  }

  // lse in base 2 needs more digits than an Acc has: a second rounding of a number near 12 would shift every weight of
  // the row by up to 5e-7 in float. +inf for rows without keys and for padding gives weights 0.
  void load_statistics() {
    constexpr Acc kInf = std::numeric_limits<Acc>::infinity();
    for (std::int64_t lane = rows_; lane < lanes_; ++lane) lse_high_[lane] = kInf, lse_low_[lane] = 0, delta_[lane] = 0;
    const std::int64_t at = head_ * p_.shape.total_q + range_.begin;
    for (std::int64_t lane = 0; lane < rows_; ++lane) {
      const Acc lse = static_cast<const Acc*>(p_.lse)[at + lane];
      const double base_2 = lse * kLog2E;
      lse_high_[lane] = lse == -kInf ? kInf : static_cast<Acc>(base_2);
      lse_low_[lane] = std::isfinite(lse) ? static_cast<Acc>(base_2 - static_cast<double>(lse_high_[lane])) : Acc(0);
      delta_[lane] = static_cast<const Acc*>(p_.delta)[at + lane];
    }
  }

  const BackwardParams& p_;
  const TileMath<Element>& math_;
  const ScoreFactors factors_;
  void *q_, *dout_, *q_pairs_, *dout_pairs_;
  Acc *dq_t_, *lse_high_, *lse_low_, *delta_;
  RowRange range_{};
  std::int64_t head_ = 0, rows_ = 0, lanes_ = 0;
  bool sees_keys_ = false;
};

}  // namespace hetsp::attention::cpu
