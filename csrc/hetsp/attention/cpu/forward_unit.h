// The forward of one unit: a tile of query rows and a query head, from its empty or seeded softmax to its stored rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cpu {

template <class Element>
class ForwardUnit {
 public:
  using Acc = typename AccOf<Element>::type;

  static std::size_t bytes(const Shape& shape, const TileMath<Element>& math) {
    return carved(math.lanes_bytes(shape.head_dim)) + carved(static_cast<std::size_t>(kTile * shape.head_dim_v) * sizeof(Acc)) +
           2 * carved(static_cast<std::size_t>(kTile) * sizeof(Acc));
  }

  // Keeps references.
  ForwardUnit(const ForwardParams& params, const TileMath<Element>& math, Scratch& scratch)
      : p_(params),
        math_(math),
        q_(scratch.take(math.lanes_bytes(params.shape.head_dim))),
        out_t_(scratch.template take<Acc>(kTile * params.shape.head_dim_v)),
        max_(scratch.template take<Acc>(kTile)),
        sum_(scratch.template take<Acc>(kTile)) {}

  void load(RowRange rows, std::int64_t head) {
    rows_ = rows, head_ = head;
    lanes_ = padded(count());
    math_.element.pack_lanes(row<Element>(p_.q, rows.begin, head), p_.q.token_stride, count(), lanes_, p_.shape.head_dim,
                             score_factors(p_.score).q, q_);
    start();
  }

  // The fields of a tile that depend on the unit alone.
  [[nodiscard]] ForwardTile<Acc> tile() const {
    const ScoreFactors factors = score_factors(p_.score);
    ForwardTile<Acc> tile{};
    tile.lanes = lanes_, tile.dim = p_.shape.head_dim, tile.dim_v = p_.shape.head_dim_v;
    tile.q = q_, tile.factor = static_cast<Acc>(factors.q), tile.cap = static_cast<Acc>(factors.cap);
    tile.max = max_, tile.sum = sum_, tile.out_t = out_t_;
    return tile;
  }

  void store() {
    alignas(64) Acc factor[kTile], divisor[kTile];
    finish(factor, divisor);
    const auto store = [&]<class T>(const Move<T>& move) {
      const Store how = store_of<T>(p_.shape.total_q, p_.shape.heads, p_.shape.head_dim_v);
      T* out = row<T>(p_.out, rows_.begin, head_);
      move.store_lanes(out_t_, count(), p_.shape.head_dim_v, factor, divisor, out, p_.out.token_stride, how);
    };
    p_.out_is_acc ? store(math_.acc) : store(math_.element);
  }

 private:
  [[nodiscard]] std::int64_t count() const { return rows_.end - rows_.begin; }
  [[nodiscard]] std::int64_t statistic() const { return head_ * p_.shape.total_q + rows_.begin; }

  // The empty state, or the seed as a part whose logarithm is known: max takes the rounded logarithm, sum the rest.
  void start() {
    std::fill(max_, max_ + lanes_, -std::numeric_limits<Acc>::infinity());
    std::fill(sum_, sum_ + lanes_, Acc(0));
    for (std::int64_t i = 0; i < p_.shape.head_dim_v; ++i) std::fill(out_t_ + i * kTile, out_t_ + i * kTile + lanes_, Acc(0));
    if (p_.seed_lse == nullptr) return;
    for (std::int64_t lane = 0; lane < count(); ++lane) {
      const auto seed = state_from_lse<double>(static_cast<const Acc*>(p_.seed_lse)[statistic() + lane]);
      if (seed.sum == 0) continue;  // out of an empty part is not read
      max_[lane] = static_cast<Acc>(seed.max);
      sum_[lane] = static_cast<Acc>(std::exp2(seed.max - static_cast<double>(max_[lane])));
      const Acc* out = row<Acc>(p_.seed_out, rows_.begin + lane, head_);
      for (std::int64_t i = 0; i < p_.shape.head_dim_v; ++i) out_t_[i * kTile + lane] = out[i] * sum_[lane];
    }
  }

  // Joins the sink and stores the logarithms; out is out_t times factor / divisor of its lane.
  void finish(Acc* factor, Acc* divisor) {
    std::fill(factor, factor + kTile, Acc(0));
    std::fill(divisor, divisor + kTile, Acc(1));
    for (std::int64_t lane = 0; lane < count(); ++lane) {
      SoftmaxState<double> state{max_[lane], sum_[lane]};
      double weight = 1.0;
      if (p_.sink != nullptr) {
        const auto joined = merge(state, state_from_lse<double>(static_cast<const Acc*>(p_.sink)[head_]));
        state = joined.state;
        weight = joined.a;
      }
      static_cast<Acc*>(p_.lse)[statistic() + lane] = static_cast<Acc>(lse(state));
      if (sum_[lane] == 0) continue;  // a factor of 0 selects: the lane may hold NaN of keys that it does not see
      factor[lane] = std::max(static_cast<Acc>(weight), std::numeric_limits<Acc>::min());  // a NaN outlives a huge sink
      divisor[lane] = static_cast<Acc>(state.sum);
    }
  }

  const ForwardParams& p_;
  const TileMath<Element>& math_;
  void* q_;
  Acc *out_t_, *max_, *sum_;
  RowRange rows_{};
  std::int64_t head_ = 0, lanes_ = 0;
};

}  // namespace hetsp::attention::cpu
