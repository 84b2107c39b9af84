#include "hetsp/attention/cpu/backward.h"

#include <cmath>
#include <memory>
#include <vector>

#include "hetsp/attention/cpu/backward_schedule.h"
#include "hetsp/attention/cpu/backward_unit.h"
#include "hetsp/attention/cpu/delta.h"
#include "hetsp/attention/cpu/dispatch.h"
#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/prefetch.h"
#include "hetsp/attention/cpu/scratch.h"
#include "hetsp/attention/cpu/slab.h"

// One pass over the scores: for each pair of a query tile and a key tile five products, from which dq, dk and dv take what is
// theirs (backward_schedule.h says who sums it where). Keys go by in the outer loop and the units of a group in the inner one,
// so that a packed key tile and its rows of the slab serve them all while they are in the cache.
namespace hetsp::attention::cpu {

namespace {

// What the units of a group may occupy: half of a 1 MB second-level cache. The rest is for the keys that go by.
constexpr std::size_t kGroupBytes = std::size_t{512} << 10;
constexpr std::size_t kMostUnits = 8;

template <class Acc>
struct Call {
  const BackwardParams& params;
  const BackwardSchedule& schedule;
  const Workspace<Acc>& workspace;

  [[nodiscard]] Slab<Acc> slab(const QueryRange& range, std::int64_t head_kv) const {
    return workspace.slab(range.workspace_row + head_kv * range.slab_rows);
  }
};

// Gradients of `count` keys of one kv head, from the slab's rows on.
template <class Element, class Acc>
void store_keys(const BackwardParams& p, const TileMath<Element>& math, const Slab<Acc>& slab, RowRange keys,
                std::int64_t head_kv) {
  const auto scale = static_cast<Acc>(p.score.softmax_scale);
  const std::int64_t count = keys.end - keys.begin;
  const auto store = [&]<class T>(const Move<T>& move) {
    const auto one = [&](const Acc* from, std::int64_t dim, Acc factor, const View& to) {
      const Store how = store_of<T>(p.shape.total_k, p.shape.heads_kv, dim);
      move.store_rows(from, count, dim, factor, row<T>(to, keys.begin, head_kv), to.token_stride, how);
    };
    one(slab.dk, p.shape.head_dim, scale, p.dk);
    one(slab.dv, p.shape.head_dim_v, Acc(1), p.dv);
  };
  p.grads_are_acc ? store(math.acc) : store(math.element);
}

// What one worker needs for its items, used again by each.
template <class Element>
class Worker {
 public:
  using Acc = typename AccOf<Element>::type;

  Worker(const Call<Acc>& call, const TileMath<Element>& math)
      : c_(call),
        p_(call.params),
        math_(math),
        dim_(p_.shape.head_dim),
        dim_v_(p_.shape.head_dim_v),
        most_units_(group_units(math_, p_.shape)),
        scratch_(bytes()) {
    k_ = scratch_.take(math_.rows_bytes(dim_)), v_ = scratch_.take(math_.rows_bytes(dim_v_));
    k_columns_ = math_.pairs_are_rows ? k_ : scratch_.take(math_.rows_bytes(dim_));
    tile_scratch_ = scratch_.take(math_.scratch_bytes());
    own_slab_.dk = scratch_.template take<Acc>(call.schedule.scratch_rows * padded(dim_));
    own_slab_.dv = scratch_.template take<Acc>(call.schedule.scratch_rows * padded(dim_v_));
    for (std::size_t i = 0; i < most_units_; ++i) units_.emplace_back(p_, math_, scratch_);
  }

  static std::size_t group_units(const TileMath<Element>& math, const Shape& shape) {
    return std::clamp<std::size_t>(kGroupBytes / BackwardUnit<Element>::bytes(math, shape), 1, kMostUnits);
  }

  void run(const BackwardItem& item) {
    for (std::int64_t i = item.ranges_begin; i < item.ranges_end; ++i) {
      if (item.heads_end - item.heads_begin > 1) read_all_heads(c_.schedule.ranges[i]);
      for (std::int64_t head_kv = item.heads_begin; head_kv < item.heads_end; ++head_kv) run(c_.schedule.ranges[i], head_kv);
    }
  }

 private:
  [[nodiscard]] std::size_t bytes() const {
    const std::size_t slab_rows = static_cast<std::size_t>(c_.schedule.scratch_rows) * sizeof(Acc);
    return 2 * carved(math_.rows_bytes(dim_)) + carved(math_.rows_bytes(dim_v_)) + carved(math_.scratch_bytes()) +
           slab_rows * static_cast<std::size_t>(padded(dim_) + padded(dim_v_)) +
           most_units_ * BackwardUnit<Element>::bytes(math_, p_.shape);
  }

  void run(const QueryRange& range, std::int64_t head_kv) {
    if (range.workspace_row >= 0) {
      slab_ = c_.slab(range, head_kv);
      return attend(range, head_kv);
    }
    slab_ = own_slab_;
    if (range.met_once) return attend(range, head_kv);
    std::fill(slab_.dk, slab_.dk + range.slab_rows * padded(dim_), Acc(0));
    std::fill(slab_.dv, slab_.dv + range.slab_rows * padded(dim_v_), Acc(0));
    attend(range, head_kv);
    for (std::int64_t i = range.runs_begin; i < range.runs_end; ++i) {
      const KeyRun& run = c_.schedule.runs[i];
      store_keys(p_, math_, rows_of_slab(run.slab), {run.begin, run.end}, head_kv);
    }
  }

  void read_all_heads(const QueryRange& range) const {
    const std::size_t in = sizeof(Element), out = p_.out_is_acc ? sizeof(Acc) : in;
    for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i) {
      const RowRange rows{c_.schedule.tiles[i].begin, c_.schedule.tiles[i].end};
      read_lines(p_.q, in, rows, p_.shape.heads, dim_), read_lines(p_.dout, out, rows, p_.shape.heads, dim_v_);
      if (p_.fill_delta != nullptr) read_lines(p_.out, out, rows, p_.shape.heads, dim_v_);
    }
    for (std::int64_t i = range.runs_begin; i < range.runs_end; ++i) {
      const RowRange keys{c_.schedule.runs[i].begin, c_.schedule.runs[i].end};
      read_lines(p_.k, in, keys, p_.shape.heads_kv, dim_), read_lines(p_.v, in, keys, p_.shape.heads_kv, dim_v_);
    }
  }

  [[nodiscard]] Slab<Acc> rows_of_slab(std::int64_t row) const {
    return {slab_.dk + row * padded(dim_), slab_.dv + row * padded(dim_v_)};
  }

  // Units that meet the same segments go together: query tiles of one run, and the heads that share the kv head.
  void attend(const QueryRange& range, std::int64_t head_kv) {
    const std::vector<WorkTile>& tiles = c_.schedule.tiles;
    const std::int64_t group = p_.shape.heads / p_.shape.heads_kv;
    std::size_t count = 0;
    for (std::int64_t i = range.tiles_begin; i < range.tiles_end; ++i)
      for (std::int64_t head = head_kv * group; head < (head_kv + 1) * group; ++head) {
        units_[count++].load({tiles[i].begin, tiles[i].end}, head, tiles[i].pairs > 0);
        const bool last_head = head + 1 == (head_kv + 1) * group;
        const bool last_of_run = last_head && (i + 1 == range.tiles_end || tiles[i + 1].list_begin != tiles[i].list_begin);
        if (count < most_units_ && !last_of_run) continue;
        for (std::int64_t at = tiles[i].list_begin; at < tiles[i].list_end; ++at)
          attend(p_.segments[c_.schedule.segments[at]], range, head_kv, count);
        for (std::size_t unit = 0; unit < count; ++unit) units_[unit].store_dq();
        count = 0;
      }
  }

  void attend(const Segment& segment, const QueryRange& range, std::int64_t head_kv, std::size_t count) {
    RowRange seen{0, 0};  // by all units: one run, since those of neighbours touch
    for (std::size_t i = 0; i < count; ++i) {
      const RowRange own = units_[i].sees_keys() ? keys_of_rows(segment, units_[i].range()) : RowRange{0, 0};
      if (own.begin >= own.end) continue;
      seen = seen.begin == seen.end ? own : RowRange{std::min(seen.begin, own.begin), std::max(seen.end, own.end)};
    }
    if (seen.begin == seen.end) return;
    const auto runs = c_.schedule.runs.begin();
    const KeyRun& run = *std::prev(std::upper_bound(runs + range.runs_begin, runs + range.runs_end, seen.begin,
                                                    [](std::int64_t key, const KeyRun& r) { return key < r.begin; }));
    for_each_tile(segment.k_begin, seen, [&](RowRange keys) {
      load_keys(keys, head_kv);
      if (range.met_once) {
        std::fill(slab_.dk, slab_.dk + (keys.end - keys.begin) * padded(dim_), Acc(0));
        std::fill(slab_.dv, slab_.dv + (keys.end - keys.begin) * padded(dim_v_), Acc(0));
      }
      const Slab<Acc> slab = rows_of_slab(range.met_once ? 0 : run.slab + keys.begin - run.begin);
      for (std::size_t i = 0; i < count; ++i) {
        if (!units_[i].sees_keys()) continue;
        const RowRange own = keys_of_rows(segment, units_[i].range());
        if (own.begin < keys.end && keys.begin < own.end) meet(segment, units_[i], keys, slab);
      }
      if (range.met_once) store_keys(p_, math_, slab, keys, head_kv);
    });
  }

  void load_keys(RowRange keys, std::int64_t head_kv) {
    const std::int64_t count = keys.end - keys.begin;
    key_rows_ = row<Element>(p_.k, keys.begin, head_kv);
    math_.element.pack_rows(key_rows_, p_.k.token_stride, count, dim_, k_);
    if (!math_.pairs_are_rows) math_.element.pack_columns(key_rows_, p_.k.token_stride, count, dim_, k_columns_);
    math_.element.pack_rows(row<Element>(p_.v, keys.begin, head_kv), p_.v.token_stride, count, dim_v_, v_);
  }

  [[nodiscard]] bool nonfinite_keys(std::int64_t count) const {
    if (!math_.pairs_are_rows) return math_.element.nonfinite(key_rows_, p_.k.token_stride, count, dim_);
    return math_.acc.nonfinite(static_cast<const Acc*>(k_), padded(dim_), count, padded(dim_));
  }

  void meet(const Segment& segment, const BackwardUnit<Element>& unit, RowRange keys, const Slab<Acc>& slab) {
    fill_mask(segment, unit.range(), keys, mask_);
    BackwardTile<Acc> tile{};
    unit.describe(tile);
    tile.keys = keys.end - keys.begin, tile.dim = dim_, tile.dim_v = dim_v_;
    tile.k = k_, tile.v = v_, tile.k_columns = k_columns_;
    const ScoreFactors factors = score_factors(p_.score);
    tile.factor = static_cast<Acc>(factors.q), tile.cap = static_cast<Acc>(factors.cap);
    tile.mask = &mask_;
    tile.careful = mask_.cut && (nonfinite_keys(tile.keys) || unit.nonfinite());
    tile.scratch = tile_scratch_;
    tile.dk = slab.dk, tile.dv = slab.dv;
    math_.backward(tile);
  }

  const Call<Acc>& c_;
  const BackwardParams& p_;
  const TileMath<Element> math_;
  const std::int64_t dim_, dim_v_;
  const std::size_t most_units_;
  Scratch scratch_;
  void *k_, *v_, *k_columns_, *tile_scratch_;
  Slab<Acc> own_slab_{}, slab_{};
  std::vector<BackwardUnit<Element>> units_;
  TileMask mask_;
  const Element* key_rows_ = nullptr;
};

// Zeros in `dim` numbers of each row and head.
template <class T>
void clear(const View& view, RowRange rows, std::int64_t heads, std::int64_t dim) {
  for (std::int64_t token = rows.begin; token < rows.end; ++token)
    for (std::int64_t head = 0; head < heads; ++head) std::fill_n(row<T>(view, token, head), dim, T{});
}

// Rows that no segment covers: dq = 0, and a delta that dsink may want.
template <class Element>
void idle_rows(const BackwardParams& p, const TileMath<Element>& math, RowRange rows) {
  using Acc = typename AccOf<Element>::type;
  for (std::int64_t head = 0; head < p.shape.heads && p.fill_delta != nullptr; ++head)
    p.out_is_acc ? delta_of_rows(delta_params(p), math.acc, rows, head)
                 : delta_of_rows(delta_params(p), math.element, rows, head);
  p.grads_are_acc ? clear<Acc>(p.dq, rows, p.shape.heads, p.shape.head_dim)
                  : clear<Element>(p.dq, rows, p.shape.heads, p.shape.head_dim);
}

template <class Element>
void idle_keys(const BackwardParams& p, RowRange keys) {
  using Acc = typename AccOf<Element>::type;
  const auto clear_both = [&](auto type) {
    clear<decltype(type)>(p.dk, keys, p.shape.heads_kv, p.shape.head_dim);
    clear<decltype(type)>(p.dv, keys, p.shape.heads_kv, p.shape.head_dim_v);
  };
  p.grads_are_acc ? clear_both(Acc{}) : clear_both(Element{});
}

// The second pass: the slabs of a component's ranges, added in their order.
template <class Element, class Acc>
void add_slabs(const Call<Acc>& call, const TileMath<Element>& math, const SplitKeys& split, std::int64_t head_kv) {
  const std::int64_t width_k = padded(call.params.shape.head_dim), width_v = padded(call.params.shape.head_dim_v);
  const RowRange keys = split.keys;
  Scratch scratch(static_cast<std::size_t>((keys.end - keys.begin) * (width_k + width_v)) * sizeof(Acc));
  const Slab<Acc> sum{scratch.take<Acc>((keys.end - keys.begin) * width_k),
                      scratch.take<Acc>((keys.end - keys.begin) * width_v)};
  std::fill_n(sum.dk, (keys.end - keys.begin) * width_k, Acc(0));
  std::fill_n(sum.dv, (keys.end - keys.begin) * width_v, Acc(0));
  const auto add = [](const Acc* from, std::int64_t count, Acc* to) {
    for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
  };
  for (std::int64_t i = split.ranges_begin; i < split.ranges_end; ++i) {
    const QueryRange& range = call.schedule.ranges[i];
    const Slab<Acc> slab = call.slab(range, head_kv);
    for (std::int64_t at = range.runs_begin; at < range.runs_end; ++at) {
      const KeyRun& run = call.schedule.runs[at];
      const std::int64_t begin = std::max(run.begin, keys.begin), count = std::min(run.end, keys.end) - begin;
      if (count <= 0) continue;
      const std::int64_t from = run.slab + begin - run.begin, to = begin - keys.begin;
      add(slab.dk + from * width_k, count * width_k, sum.dk + to * width_k);
      add(slab.dv + from * width_v, count * width_v, sum.dv + to * width_v);
    }
  }
  store_keys(call.params, math, sum, keys, head_kv);
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

}  // namespace

template <class Element>
void backward(const BackwardParams& params, Parallel& parallel, const TileMath<Element>& math) {
  using Acc = typename AccOf<Element>::type;
  const Shape& shape = params.shape;
  BackwardLimits limits;
  limits.group_units = static_cast<std::int64_t>(Worker<Element>::group_units(math, shape));
  const BackwardSchedule schedule = backward_schedule(params.segments, params.segment_count, shape.total_q, shape.total_k,
                                                      shape.heads, shape.heads_kv, kTile, limits);
  const Workspace<Acc> workspace(shape, schedule.workspace_rows);
  const Call<Acc> call{params, schedule, workspace};
  const auto items = static_cast<std::int64_t>(schedule.items.size()),
             rows = static_cast<std::int64_t>(schedule.idle_rows.size()),
             keys = static_cast<std::int64_t>(schedule.idle_keys.size());
  std::vector<std::unique_ptr<Worker<Element>>> workers(parallel.workers());
  const auto region = [&] { return TileRegion(math); };
  for_each_item(parallel, items + rows + keys, region, [&](std::int64_t item, int worker) {
    if (item >= items + rows) return idle_keys<Element>(params, schedule.idle_keys[item - items - rows]);
    if (item >= items) return idle_rows(params, math, schedule.idle_rows[item - items]);
    auto& own = workers[worker];
    if (!own) own = std::make_unique<Worker<Element>>(call, math);
    own->run(schedule.items[item]);
  });
  const std::int64_t sinks = params.sink != nullptr ? shape.heads : 0;
  const std::int64_t splits = static_cast<std::int64_t>(schedule.splits.size()) * shape.heads_kv;
  for_each_item(parallel, sinks + splits, [&](std::int64_t item, int) {
    if (item < sinks) return dsink_of<Acc>(params, item);
    add_slabs(call, math, schedule.splits[(item - sinks) / shape.heads_kv], (item - sinks) % shape.heads_kv);
  });
}

void backward(const BackwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { backward(params, parallel, tile_math<decltype(element)>(isa)); });
}

template void backward(const BackwardParams& params, Parallel& parallel, const TileMath<float>& math);
template void backward(const BackwardParams& params, Parallel& parallel, const TileMath<double>& math);
template void backward(const BackwardParams& params, Parallel& parallel, const TileMath<BFloat16>& math);
template void backward(const BackwardParams& params, Parallel& parallel, const TileMath<Float16>& math);

}  // namespace hetsp::attention::cpu
