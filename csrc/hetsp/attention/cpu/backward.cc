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
template <class Element, class Acc>
class QueryItem {
 public:
  QueryItem(const BackwardParams& params, TileMath<Acc> math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        rows_(params),
        scratch_(kTile * (2 * padded(dim_) + padded(dim_v_) + 2 * kTile)) {
    k_ = scratch_.take(kTile * dim_);
    v_ = scratch_.take(kTile * dim_v_);
    p_scores_ = scratch_.take(kTile * kTile);
    ds_ = scratch_.take(kTile * kTile);
    dq_t_ = scratch_.take(kTile * dim_);
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head) {
    const RowRange range{tile.begin, tile.end};
    std::fill(dq_t_, dq_t_ + kTile * dim_, Acc(0));
    if (tile.pairs > 0) {
      rows_.load_rows(range, head);
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i) attend(p_.segments[list[i]], range, head);
    }
    p_.grads_are_acc ? store<Acc>(range, head) : store<Element>(range, head);
  }

 private:
  void attend(const Segment& segment, RowRange range, std::int64_t head) {
    const std::int64_t head_kv = head / (p_.shape.heads / p_.shape.heads_kv);
    for_each_tile(segment.k_begin, keys_of_rows(segment, range), [&](RowRange keys) {
      const std::int64_t count = keys.end - keys.begin;
      load<Element>(p_.k, keys, head_kv, dim_, dim_, k_);
      load<Element>(p_.v, keys, head_kv, dim_v_, dim_v_, v_);
      fill_mask(segment, range, keys, mask_);
      BackwardTile<Acc> tile = rows_.tile();
      tile.keys = count, tile.k = k_, tile.v = v_, tile.mask = &mask_;
      tile.careful = mask_.cut && has_nonfinite(k_, count * dim_);
      tile.p = p_scores_, tile.ds = ds_, tile.dq_t = dq_t_, tile.dk = nullptr, tile.dv = nullptr;
      math_.backward(tile);
    });
  }

  template <class Out>
  void store(RowRange range, std::int64_t head) {
    const Acc scale = static_cast<Acc>(p_.score.softmax_scale);
    for (std::int64_t r = range.begin, lane = 0; r < range.end; ++r, ++lane) {
      Out* out = row<Out>(p_.dq, r, head);
      for (std::int64_t i = 0; i < dim_; ++i) narrow(dq_t_[i * kTile + lane] * scale, out[i]);
    }
  }

  const BackwardParams& p_;
  const TileMath<Acc> math_;
  const std::int64_t dim_, dim_v_;
  BackwardRows<Element, Acc> rows_;
  Scratch<Acc> scratch_;
  Acc *k_, *v_, *p_scores_, *ds_, *dq_t_;
  TileMask mask_;
};

// dk and dv of the keys of a tile, one kv head: the query heads that share it are summed here, in order.
template <class Element, class Acc>
class KeyItem {
 public:
  KeyItem(const BackwardParams& params, TileMath<Acc> math)
      : p_(params),
        math_(math),
        dim_(params.shape.head_dim),
        dim_v_(params.shape.head_dim_v),
        rows_(params),
        scratch_(kTile * (2 * padded(dim_) + 2 * padded(dim_v_) + 2 * kTile)) {
    k_ = scratch_.take(kTile * dim_);
    v_ = scratch_.take(kTile * dim_v_);
    p_scores_ = scratch_.take(kTile * kTile);
    ds_ = scratch_.take(kTile * kTile);
    dk_ = scratch_.take(kTile * padded(dim_));
    dv_ = scratch_.take(kTile * padded(dim_v_));
  }

  void run(const WorkTile& tile, const std::int64_t* list, std::int64_t head_kv) {
    const RowRange keys{tile.begin, tile.end};
    std::fill(dk_, dk_ + kTile * padded(dim_), Acc(0));
    std::fill(dv_, dv_ + kTile * padded(dim_v_), Acc(0));
    if (tile.pairs > 0) {
      load<Element>(p_.k, keys, head_kv, dim_, dim_, k_);
      load<Element>(p_.v, keys, head_kv, dim_v_, dim_v_, v_);
      const std::int64_t group = p_.shape.heads / p_.shape.heads_kv;
      for (std::int64_t i = tile.list_begin; i < tile.list_end; ++i)
        for (std::int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head)
          attend(p_.segments[list[i]], keys, head);
    }
    p_.grads_are_acc ? store<Acc>(keys, head_kv) : store<Element>(keys, head_kv);
  }

 private:
  void attend(const Segment& segment, RowRange keys, std::int64_t head) {
    for_each_tile(segment.q_begin, rows_of_keys(segment, keys), [&](RowRange range) {
      rows_.load_rows(range, head);
      fill_mask(segment, range, keys, mask_);
      BackwardTile<Acc> tile = rows_.tile();
      tile.keys = keys.end - keys.begin, tile.k = k_, tile.v = v_, tile.mask = &mask_;
      tile.careful = mask_.cut && rows_.nonfinite();
      tile.p = p_scores_, tile.ds = ds_, tile.dq_t = nullptr, tile.dk = dk_, tile.dv = dv_;
      math_.backward(tile);
    });
  }

  template <class Out>
  void store(RowRange keys, std::int64_t head_kv) {
    const Acc scale = static_cast<Acc>(p_.score.softmax_scale);
    for (std::int64_t key = keys.begin, at = 0; key < keys.end; ++key, ++at) {
      Out *dk = row<Out>(p_.dk, key, head_kv), *dv = row<Out>(p_.dv, key, head_kv);
      for (std::int64_t i = 0; i < dim_; ++i) narrow(dk_[at * padded(dim_) + i] * scale, dk[i]);
      for (std::int64_t i = 0; i < dim_v_; ++i) narrow(dv_[at * padded(dim_v_) + i], dv[i]);
    }
  }

  const BackwardParams& p_;
  const TileMath<Acc> math_;
  const std::int64_t dim_, dim_v_;
  BackwardRows<Element, Acc> rows_;
  Scratch<Acc> scratch_;
  Acc *k_, *v_, *p_scores_, *ds_, *dk_, *dv_;
  TileMask mask_;
};

// delta_i = dout_i . out_i - dlse_i of up to kTile rows, one head. A term with out = 0 is 0 whatever dout holds, and dlse of
// a row without keys is not read: so may hold NaN.
template <class Out, class Acc>
class DeltaItem {
 public:
  DeltaItem(const DeltaParams& params, TileMath<Acc> math)
      : p_(params), math_(math), dim_v_(params.head_dim_v), scratch_(kTile * (2 * padded(dim_v_) + 1)) {
    out_ = scratch_.take(kTile * dim_v_);
    dout_ = scratch_.take(kTile * dim_v_);
    delta_ = scratch_.take(kTile);
  }

  void run(RowRange range, std::int64_t head) {
    const std::int64_t rows = range.end - range.begin;
    load<Out>(p_.out, range, head, dim_v_, dim_v_, out_);
    load<Out>(p_.dout, range, head, dim_v_, dim_v_, dout_);
    for (std::int64_t i = 0; i < rows * dim_v_; ++i) dout_[i] = out_[i] == 0 ? Acc(0) : dout_[i];
    math_.delta(rows, dim_v_, out_, dout_, delta_);
    const std::int64_t at = head * p_.total_q + range.begin;
    for (std::int64_t i = 0; i < rows; ++i) {
      const bool keyless = static_cast<const Acc*>(p_.lse)[at + i] == -std::numeric_limits<Acc>::infinity();
      const Acc dlse = p_.dlse == nullptr || keyless ? Acc(0) : static_cast<const Acc*>(p_.dlse)[at + i];
      static_cast<Acc*>(p_.delta)[at + i] = delta_[i] - dlse;
    }
  }

 private:
  const DeltaParams& p_;
  const TileMath<Acc> math_;
  const std::int64_t dim_v_;
  Scratch<Acc> scratch_;
  Acc *out_, *dout_, *delta_;
};

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

// Calls body(own, item) for each item, with an Item per worker, made when the worker gets its first.
template <class Item, class Acc, class Params, class Body>
void for_each_with(const Params& params, Parallel& parallel, Isa isa, std::int64_t items, const Body& body) {
  std::vector<std::unique_ptr<Item>> worker_item(parallel.workers());
  for_each_item(parallel, items, [&](std::int64_t item, int worker) {
    auto& own = worker_item[worker];
    if (!own) own = std::make_unique<Item>(params, tile_math<Acc>(isa));
    body(*own, item);
  });
}

template <class Out, class Acc>
void run_delta(const DeltaParams& params, Parallel& parallel, Isa isa) {
  const std::int64_t total = params.total_q, tiles = ceil_div(total, kTile);
  for_each_with<DeltaItem<Out, Acc>, Acc>(params, parallel, isa, tiles * params.heads, [&](auto& own, std::int64_t item) {
    const std::int64_t begin = item % tiles * kTile;
    own.run({begin, std::min(begin + kTile, total)}, item / tiles);
  });
}

template <class Item, class Acc>
void run_axis(const BackwardParams& params, Parallel& parallel, Isa isa, Axis axis, std::int64_t total, std::int64_t heads) {
  const WorkList list = work_list(params.segments, params.segment_count, axis, total, kTile);
  const auto items = static_cast<std::int64_t>(list.tiles.size()) * heads;
  for_each_with<Item, Acc>(params, parallel, isa, items, [&](auto& own, std::int64_t item) {
    own.run(list.tiles[item / heads], list.segments.data(), item % heads);
  });
}

template <class Element>
void run(const BackwardParams& params, Parallel& parallel, Isa isa) {
  using Acc = typename AccOf<Element>::type;
  const Shape& shape = params.shape;
  if (params.fill_delta != nullptr) delta(delta_params(params), parallel, isa);
  if (params.sink != nullptr)
    for_each_item(parallel, shape.heads, [&](std::int64_t head, int) { dsink_of<Acc>(params, head); });
  run_axis<QueryItem<Element, Acc>, Acc>(params, parallel, isa, Axis::queries, shape.total_q, shape.heads);
  run_axis<KeyItem<Element, Acc>, Acc>(params, parallel, isa, Axis::keys, shape.total_k, shape.heads_kv);
}

}  // namespace

void delta(const DeltaParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.dtype, [&](auto element) {
    using Element = decltype(element);
    run_delta<Element, typename AccOf<Element>::type>(params, parallel, isa);
  });
}

void backward(const BackwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { run<decltype(element)>(params, parallel, isa); });
}

}  // namespace hetsp::attention::cpu
