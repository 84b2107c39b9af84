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
template <class Element>
class ForwardItem {
 public:
  using Acc = typename AccOf<Element>::type;

  ForwardItem(const ForwardParams& params, const TileMath<Element>& math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        factors_(score_factors(params.score)),
        scratch_(bytes()) {
    q_ = scratch_.take(math_.lanes_bytes(dim_));
    k_ = scratch_.take(math_.rows_bytes(dim_));
    v_ = scratch_.take(math_.rows_bytes(dim_v_));
    tile_scratch_ = scratch_.take(math_.scratch_bytes());
    out_t_ = scratch_.take<Acc>(kTile * dim_v_);
    max_ = scratch_.take<Acc>(kTile);
    sum_ = scratch_.take<Acc>(kTile);
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head) {
    rows_ = {tile.begin, tile.end};
    head_ = head;
    lanes_ = padded(rows_.end - rows_.begin);
    start();
    if (tile.pairs > 0) {
      math_.element.pack_lanes(row<Element>(p_.q, rows_.begin, head), p_.q.token_stride, rows_.end - rows_.begin, lanes_, dim_,
                               factors_.q, q_);
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i) attend(p_.segments[list[i]]);
    }
    alignas(64) Acc factor[kTile], divisor[kTile];
    finish(factor, divisor);
    const std::int64_t rows = rows_.end - rows_.begin;
    if (p_.out_is_acc) {
      math_.acc.store_lanes(out_t_, rows, dim_v_, factor, divisor, row<Acc>(p_.out, rows_.begin, head), p_.out.token_stride);
    } else {
      math_.element.store_lanes(out_t_, rows, dim_v_, factor, divisor, row<Element>(p_.out, rows_.begin, head),
                                p_.out.token_stride);
    }
  }

 private:
  [[nodiscard]] std::size_t bytes() const {
    return carved(math_.lanes_bytes(dim_)) + carved(math_.rows_bytes(dim_)) + carved(math_.rows_bytes(dim_v_)) +
           carved(math_.scratch_bytes()) + carved(static_cast<std::size_t>(kTile * (dim_v_ + 2)) * sizeof(Acc));
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
      const Element *k = row<Element>(p_.k, keys.begin, head_kv), *v = row<Element>(p_.v, keys.begin, head_kv);
      math_.element.pack_rows(k, p_.k.token_stride, count, dim_, k_);
      math_.element.pack_pairs(v, p_.v.token_stride, count, dim_v_, v_);
      fill_mask(segment, rows_, keys, mask_);
      const bool careful = mask_.cut && math_.element.nonfinite(v, p_.v.token_stride, count, dim_v_);
      math_.forward({lanes_, count, dim_, dim_v_, q_, k_, v_, static_cast<Acc>(factors_.q), static_cast<Acc>(factors_.cap),
                     &mask_, careful, tile_scratch_, max_, sum_, out_t_});
    });
  }

  // Joins the sink and stores the logarithms; out is out_t times factor / divisor of its lane.
  void finish(Acc* factor, Acc* divisor) {
    std::fill(factor, factor + kTile, Acc(0));
    std::fill(divisor, divisor + kTile, Acc(1));
    for (std::int64_t r = rows_.begin, lane = 0; r < rows_.end; ++r, ++lane) {
      SoftmaxState<double> state{max_[lane], sum_[lane]};
      double weight = 1.0;
      if (p_.sink != nullptr) {
        const auto joined = merge(state, state_from_lse<double>(static_cast<const Acc*>(p_.sink)[head_]));
        state = joined.state;
        weight = joined.a;
      }
      static_cast<Acc*>(p_.lse)[head_ * p_.shape.total_q + r] = static_cast<Acc>(lse(state));
      if (sum_[lane] == 0) continue;  // a factor of 0 selects: the lane may hold NaN of keys that it does not see
      factor[lane] = std::max(static_cast<Acc>(weight), std::numeric_limits<Acc>::min());  // a NaN outlives a huge sink
      divisor[lane] = static_cast<Acc>(state.sum);
    }
  }

  const ForwardParams& p_;
  const TileMath<Element> math_;
  const std::int64_t dim_, dim_v_;
  const ScoreFactors factors_;
  Scratch scratch_;
  void *q_, *k_, *v_, *tile_scratch_;
  Acc *out_t_, *max_, *sum_;
  TileMask mask_;
  RowRange rows_{};
  std::int64_t head_ = 0, lanes_ = 0;
};

template <class Element>
void run(const ForwardParams& params, Parallel& parallel, Isa isa) {
  const WorkList list = work_list(params.segments, params.segment_count, Axis::queries, params.shape.total_q, kTile);
  const std::int64_t heads = params.shape.heads;
  const auto items = static_cast<std::int64_t>(list.tiles.size()) * heads;
  std::vector<std::unique_ptr<ForwardItem<Element>>> worker_item(parallel.workers());
  for_each_item(parallel, items, [&](std::int64_t item, int worker) {
    auto& own = worker_item[worker];
    if (!own) own = std::make_unique<ForwardItem<Element>>(params, tile_math<Element>(isa));
    own->run(list.tiles[item / heads], list.segments.data(), item % heads);
  });
}

}  // namespace

void forward(const ForwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { run<decltype(element)>(params, parallel, isa); });
}

}  // namespace hetsp::attention::cpu
