#include "hetsp/attention/cpu/forward.h"

#include <cmath>
#include <vector>

#include "hetsp/attention/cpu/dispatch.h"
#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/softmax_state.h"
#include "hetsp/attention/work_list.h"

namespace hetsp::attention::cpu {

namespace {

// One worker's item: the query rows of a tile, one head, over all keys that they see.
template <class Element, class Acc>
class ForwardItem {
 public:
  ForwardItem(const ForwardParams& params, TileMath<Acc> math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        factors_(score_factors(params.score)),
        scratch_(size(params.shape)) {
    q_ = scratch_.take(kTile * dim_);
    q_t_ = scratch_.take(kTile * dim_);
    k_ = scratch_.take(kTile * dim_);
    v_ = scratch_.take(kTile * dim_v_);
    scores_ = scratch_.take(kTile * kTile);
    out_t_ = scratch_.take(kTile * dim_v_);
    max_ = scratch_.take(kTile);
    sum_ = scratch_.take(kTile);
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head) {
    rows_ = {tile.begin, tile.end};
    head_ = head;
    lanes_ = padded(rows_.end - rows_.begin);
    start();
    if (tile.pairs > 0) {
      load<Element>(p_.q, rows_, head, dim_, dim_, q_);
      transpose(q_, rows_.end - rows_.begin, lanes_, dim_, dim_, factors_.q, q_t_);
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i) attend(p_.segments[list[i]]);
    }
    if (p_.out_is_acc) {
      finish<Acc>();
    } else {
      finish<Element>();
    }
  }

 private:
  static std::int64_t size(const Shape& shape) {
    return kTile * (3 * padded(shape.head_dim) + 2 * padded(shape.head_dim_v) + kTile + 2);
  }

  // The empty state, or the seed as a part whose logarithm is known: max takes the rounded logarithm, sum the rest.
  void start() {
    for (std::int64_t lane = 0; lane < lanes_; ++lane) max_[lane] = -std::numeric_limits<Acc>::infinity(), sum_[lane] = 0;
    std::fill(out_t_, out_t_ + kTile * dim_v_, Acc(0));
    if (p_.seed_lse == nullptr) return;
    for (std::int64_t r = rows_.begin, lane = 0; r < rows_.end; ++r, ++lane) {
      const SoftmaxState<double> seed =
          state_from_lse<double>(static_cast<const Acc*>(p_.seed_lse)[head_ * p_.shape.total_q + r]);
      if (seed.sum == 0) continue;  // out of an empty part is not read
      max_[lane] = static_cast<Acc>(seed.max);
      sum_[lane] = static_cast<Acc>(std::exp2(seed.max - static_cast<double>(max_[lane])));
      const Acc* out = row<Acc>(p_.seed_out, r, head_);
      for (std::int64_t i = 0; i < dim_v_; ++i) out_t_[i * kTile + lane] = out[i] * sum_[lane];
    }
  }

  void attend(const Segment& segment) {
    const std::int64_t head_kv = head_ / (p_.shape.heads / p_.shape.heads_kv);
    for_each_tile(segment.k_begin, keys_of_rows(segment, rows_), [&](RowRange keys) {
      const std::int64_t count = keys.end - keys.begin;
      load<Element>(p_.k, keys, head_kv, dim_, dim_, k_);
      load<Element>(p_.v, keys, head_kv, dim_v_, dim_v_, v_);
      fill_mask(segment, rows_, keys, mask_);
      const bool careful = mask_.cut && has_nonfinite(v_, count * dim_v_);
      math_.forward({lanes_, count, dim_, dim_v_, q_t_, k_, v_, static_cast<Acc>(factors_.cap), &mask_, careful, scores_, max_,
                     sum_, out_t_});
    });
  }

  // Joins the sink, normalises, stores.
  template <class Out>
  void finish() {
    alignas(64) Acc numerator[kTile], denominator[kTile];
    for (std::int64_t r = rows_.begin, lane = 0; r < rows_.end; ++r, ++lane) {
      SoftmaxState<double> state{max_[lane], sum_[lane]};
      double weight = 1.0;
      if (p_.sink != nullptr) {
        const auto joined = merge(state, state_from_lse<double>(static_cast<const Acc*>(p_.sink)[head_]));
        state = joined.state;
        weight = joined.a;
      }
      static_cast<Acc*>(p_.lse)[head_ * p_.shape.total_q + r] = static_cast<Acc>(lse(state));
      numerator[lane] = static_cast<Acc>(weight);
      denominator[lane] = static_cast<Acc>(state.sum);
    }
    for (std::int64_t r = rows_.begin, lane = 0; r < rows_.end; ++r, ++lane) {
      Out* out = row<Out>(p_.out, r, head_);
      const bool empty = sum_[lane] == 0;  // select: the lane's sums may hold NaN of keys that it does not see
      for (std::int64_t i = 0; i < dim_v_; ++i)
        narrow(empty ? Acc(0) : out_t_[i * kTile + lane] * numerator[lane] / denominator[lane], out[i]);
    }
  }

  const ForwardParams& p_;
  const TileMath<Acc> math_;
  const std::int64_t dim_, dim_v_;
  const ScoreFactors factors_;
  Scratch<Acc> scratch_;
  Acc *q_, *q_t_, *k_, *v_, *scores_, *out_t_, *max_, *sum_;
  TileMask mask_;
  RowRange rows_{};
  std::int64_t head_ = 0, lanes_ = 0;
};

template <class Element>
void run(const ForwardParams& params, Parallel& parallel, Isa isa) {
  using Acc = typename AccOf<Element>::type;
  const WorkList list = work_list(params.segments, params.segment_count, Axis::queries, params.shape.total_q, kTile);
  const std::int64_t heads = params.shape.heads;
  const auto items = static_cast<std::int64_t>(list.tiles.size()) * heads;
  std::vector<std::unique_ptr<ForwardItem<Element, Acc>>> worker_item(parallel.workers());
  for_each_item(parallel, items, [&](std::int64_t item, int worker) {
    auto& own = worker_item[worker];
    if (!own) own = std::make_unique<ForwardItem<Element, Acc>>(params, tile_math<Acc>(isa));
    own->run(list.tiles[item / heads], list.segments.data(), item % heads);
  });
}

}  // namespace

void forward(const ForwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { run<decltype(element)>(params, parallel, isa); });
}

}  // namespace hetsp::attention::cpu
