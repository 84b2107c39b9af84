#include "hetsp/attention/cpu/backward.h"

#include <cmath>
#include <vector>

#include "hetsp/attention/cpu/backward_rows.h"
#include "hetsp/attention/cpu/dispatch.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/work_list.h"

// Three passes, each parallel over its own rows, so that nothing is summed by two workers: delta and dsink; dq by query
// tiles; dk and dv by key tiles. Scores are computed in both of the latter: 7 products where 5 would do with shared dq
// sums, which is the price of a fixed order without a copy of dq per key range.
namespace hetsp::attention::cpu {

namespace {

// dq of the query rows of a tile, one head.
template <class Element>
class QueryItem {
 public:
  using Acc = typename AccOf<Element>::type;

  QueryItem(const BackwardParams& params, const TileMath<Element>& math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        rows_(params, math),
        scratch_(2 * math_.rows_bytes(dim_) + math_.rows_bytes(dim_v_) + carved(math_.scratch_bytes()) +
                 carved(static_cast<std::size_t>(kTile * dim_) * sizeof(Acc))) {
    k_ = scratch_.take(math_.rows_bytes(dim_));
    k_pairs_ = scratch_.take(math_.rows_bytes(dim_));
    v_ = scratch_.take(math_.rows_bytes(dim_v_));
    tile_scratch_ = scratch_.take(math_.scratch_bytes());
    dq_t_ = scratch_.take<Acc>(kTile * dim_);
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head) {
    const RowRange range{tile.begin, tile.end};
    std::fill(dq_t_, dq_t_ + kTile * dim_, Acc(0));
    if (tile.pairs > 0) {
      rows_.load_rows(range, head);
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i) attend(p_.segments[list[i]], range, head);
    }
    store(range, head);
  }

 private:
  void attend(const Segment& segment, RowRange range, std::int64_t head) {
    const std::int64_t head_kv = head / (p_.shape.heads / p_.shape.heads_kv);
    for_each_tile(segment.k_begin, keys_of_rows(segment, range), [&](RowRange keys) {
      const std::int64_t count = keys.end - keys.begin;
      const Element* k = row<Element>(p_.k, keys.begin, head_kv);
      math_.element.pack_rows(k, p_.k.token_stride, count, dim_, k_);
      math_.element.pack_pairs(k, p_.k.token_stride, count, dim_, k_pairs_);
      math_.element.pack_rows(row<Element>(p_.v, keys.begin, head_kv), p_.v.token_stride, count, dim_v_, v_);
      fill_mask(segment, range, keys, mask_);
      BackwardTile<Acc> tile = rows_.tile();
      tile.keys = count, tile.k = k_, tile.k_pairs = k_pairs_, tile.v = v_, tile.mask = &mask_;
      tile.careful = mask_.cut && math_.element.nonfinite(k, p_.k.token_stride, count, dim_);
      tile.scratch = tile_scratch_, tile.dq_t = dq_t_;
      math_.backward(tile);
    });
  }

  void store(RowRange range, std::int64_t head) {
    alignas(64) Acc scale[kTile];
    std::fill(scale, scale + kTile, static_cast<Acc>(p_.score.softmax_scale));
    const std::int64_t rows = range.end - range.begin;
    if (p_.grads_are_acc) {
      math_.acc.store_lanes(dq_t_, rows, dim_, scale, nullptr, row<Acc>(p_.dq, range.begin, head), p_.dq.token_stride);
    } else {
      math_.element.store_lanes(dq_t_, rows, dim_, scale, nullptr, row<Element>(p_.dq, range.begin, head), p_.dq.token_stride);
    }
  }

  const BackwardParams& p_;
  const TileMath<Element> math_;
  const std::int64_t dim_, dim_v_;
  BackwardRows<Element> rows_;
  Scratch scratch_;
  void *k_, *k_pairs_, *v_, *tile_scratch_;
  Acc* dq_t_;
  TileMask mask_;
};

// dk and dv of the keys of a tile, one kv head: the query heads that share it are summed here, in order.
template <class Element>
class KeyItem {
 public:
  using Acc = typename AccOf<Element>::type;

  KeyItem(const BackwardParams& params, const TileMath<Element>& math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        rows_(params, math),
        scratch_(math_.rows_bytes(dim_) + math_.rows_bytes(dim_v_) + carved(math_.scratch_bytes()) +
                 static_cast<std::size_t>(kTile * (padded(dim_) + padded(dim_v_))) * sizeof(Acc)) {
    k_ = scratch_.take(math_.rows_bytes(dim_));
    v_ = scratch_.take(math_.rows_bytes(dim_v_));
    tile_scratch_ = scratch_.take(math_.scratch_bytes());
    dk_ = scratch_.take<Acc>(kTile * padded(dim_));
    dv_ = scratch_.take<Acc>(kTile * padded(dim_v_));
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head_kv) {
    const RowRange keys{tile.begin, tile.end};
    std::fill(dk_, dk_ + kTile * padded(dim_), Acc(0));
    std::fill(dv_, dv_ + kTile * padded(dim_v_), Acc(0));
    if (tile.pairs > 0) {
      const std::int64_t count = keys.end - keys.begin;
      math_.element.pack_rows(row<Element>(p_.k, keys.begin, head_kv), p_.k.token_stride, count, dim_, k_);
      math_.element.pack_rows(row<Element>(p_.v, keys.begin, head_kv), p_.v.token_stride, count, dim_v_, v_);
      const std::int64_t group = p_.shape.heads / p_.shape.heads_kv;
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i)
        for (std::int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head)
          attend(p_.segments[list[i]], keys, head);
    }
    p_.grads_are_acc ? store(math_.acc, keys, head_kv) : store(math_.element, keys, head_kv);
  }

 private:
  void attend(const Segment& segment, RowRange keys, std::int64_t head) {
    for_each_tile(segment.q_begin, rows_of_keys(segment, keys), [&](RowRange range) {
      rows_.load_rows(range, head);
      fill_mask(segment, range, keys, mask_);
      BackwardTile<Acc> tile = rows_.tile();
      tile.keys = keys.end - keys.begin, tile.k = k_, tile.v = v_, tile.mask = &mask_;
      tile.careful = mask_.cut && rows_.nonfinite();
      tile.scratch = tile_scratch_, tile.dk = dk_, tile.dv = dv_;
      math_.backward(tile);
    });
  }

  template <class Out>
  void store(const Move<Out>& move, RowRange keys, std::int64_t head_kv) {
    const std::int64_t count = keys.end - keys.begin;
    const Acc scale = static_cast<Acc>(p_.score.softmax_scale);
    move.store_rows(dk_, count, dim_, scale, row<Out>(p_.dk, keys.begin, head_kv), p_.dk.token_stride);
    move.store_rows(dv_, count, dim_v_, 1, row<Out>(p_.dv, keys.begin, head_kv), p_.dv.token_stride);
  }

  const BackwardParams& p_;
  const TileMath<Element> math_;
  const std::int64_t dim_, dim_v_;
  BackwardRows<Element> rows_;
  Scratch scratch_;
  void *k_, *v_, *tile_scratch_;
  Acc *dk_, *dv_;
  TileMask mask_;
};

// delta_i = dout_i . out_i - dlse_i of up to kTile rows, one head. dlse of a row without keys is not read: so may hold NaN.
template <class Out, class Acc>
void delta_of(const DeltaParams& p, const Move<Out>& move, RowRange range, std::int64_t head) {
  const std::int64_t rows = range.end - range.begin, at = head * p.total_q + range.begin;
  Acc* delta = static_cast<Acc*>(p.delta) + at;
  move.delta(row<Out>(p.out, range.begin, head), p.out.token_stride, row<Out>(p.dout, range.begin, head), p.dout.token_stride,
             rows, p.head_dim_v, delta);
  if (p.dlse == nullptr) return;
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool keyless = static_cast<const Acc*>(p.lse)[at + i] == -std::numeric_limits<Acc>::infinity();
    if (!keyless) delta[i] -= static_cast<const Acc*>(p.dlse)[at + i];
  }
}

// dsink_a = - sum_i e^(sink_a - lse_i) delta_i, rows in order.
template <class Acc>
void dsink_of(const BackwardParams& p, std::int64_t head) {
  const double sink = static_cast<const Acc*>(p.sink)[head];
  double sum = 0;
  for (std::int64_t token = 0; token < p.shape.total_q; ++token) {
    const double lse = static_cast<const Acc*>(p.lse)[head * p.shape.total_q + token];
    if (sink != -std::numeric_limits<double>::infinity())
      sum -= std::exp(sink - lse) * static_cast<const Acc*>(p.delta)[head * p.shape.total_q + token];
  }
  static_cast<Acc*>(p.dsink)[head] = static_cast<Acc>(sum);
}

template <class Out>
void run_delta(const DeltaParams& params, Parallel& parallel, const Move<Out>& move) {
  const std::int64_t total = params.total_q, tiles = ceil_div(total, kTile);
  for_each_item(parallel, tiles * params.heads, [&](std::int64_t item, int) {
    const std::int64_t begin = item % tiles * kTile;
    delta_of<Out, typename AccOf<Out>::type>(params, move, {begin, std::min(begin + kTile, total)}, item / tiles);
  });
}

// Each worker makes its Item when it gets its first.
template <class Item, class Math>
void run_axis(const BackwardParams& params, Parallel& parallel, const Math& math, Axis axis, std::int64_t total,
              std::int64_t heads) {
  const WorkList list = work_list(params.segments, params.segment_count, axis, total, kTile);
  std::vector<std::unique_ptr<Item>> worker_item(parallel.workers());
  for_each_item(parallel, static_cast<std::int64_t>(list.tiles.size()) * heads, [&](std::int64_t item, int worker) {
    auto& own = worker_item[worker];
    if (!own) own = std::make_unique<Item>(params, math);
    own->run(list.tiles[item / heads], list.segments.data(), item % heads);
  });
}

template <class Element>
void run(const BackwardParams& params, Parallel& parallel, Isa isa) {
  using Acc = typename AccOf<Element>::type;
  const Shape& shape = params.shape;
  if (params.fill_delta != nullptr) delta(delta_params(params), parallel, isa);
  const TileMath<Element> math = tile_math<Element>(isa);
  if (params.sink != nullptr)
    for_each_item(parallel, shape.heads, [&](std::int64_t head, int) { dsink_of<Acc>(params, head); });
  run_axis<QueryItem<Element>>(params, parallel, math, Axis::queries, shape.total_q, shape.heads);
  run_axis<KeyItem<Element>>(params, parallel, math, Axis::keys, shape.total_k, shape.heads_kv);
}

}  // namespace

void delta(const DeltaParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.dtype, [&](auto element) { run_delta(params, parallel, tile_math<decltype(element)>(isa).element); });
}

void backward(const BackwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { run<decltype(element)>(params, parallel, isa); });
}

}  // namespace hetsp::attention::cpu
