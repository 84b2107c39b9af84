#include "hetsp/attention/cpu/forward.h"

#include <memory>
#include <optional>
#include <vector>

#include "hetsp/attention/cpu/dispatch.h"
#include "hetsp/attention/cpu/forward_schedule.h"
#include "hetsp/attention/cpu/forward_unit.h"
#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/cpu/prefetch.h"
#include "hetsp/attention/cpu/scratch.h"

namespace hetsp::attention::cpu {

namespace {

// Bytes of units that one batch may have: half of an L2 cache of 1 MiB, beside the keys and values that stream through it.
constexpr std::size_t kBatchBytes = std::size_t{512} << 10;
constexpr std::int64_t kMostUnits = 8;  // beyond, packing a key tile costs less than 1 % of using it

template <class Element>
std::int64_t batch_units(const Shape& shape, const TileMath<Element>& math) {
  const std::size_t bytes = ForwardUnit<Element>::bytes(shape, math);
  return std::clamp<std::int64_t>(static_cast<std::int64_t>(kBatchBytes / bytes), 1, kMostUnits);
}

// One worker: its items, batch by batch.
template <class Element>
class ForwardWorker {
 public:
  using Acc = typename AccOf<Element>::type;

  ForwardWorker(const ForwardParams& params, const TileMath<Element>& math, const ForwardSchedule& schedule)
      : p_(params), math_(math), s_(schedule), scratch_(bytes()), masks_(static_cast<std::size_t>(schedule.batch_tiles)) {
    k_ = scratch_.take(math_.rows_bytes(p_.shape.head_dim));
    v_ = scratch_.take(math_.rows_bytes(p_.shape.head_dim_v));
    tile_scratch_ = scratch_.take(math_.scratch_bytes());
    for (std::int64_t i = 0; i < s_.batch_tiles * s_.batch_heads; ++i) units_.emplace_back(p_, math_, scratch_);
  }

  void run(const ForwardItem& item) {
    for (Batch batch = batch_at(item, item.tiles_begin, item.heads_begin); !batch.none();) {
      const Batch next = next_batch(item, batch);
      run_batch(batch, next);
      batch = next;
    }
  }

 private:
  [[nodiscard]] std::size_t bytes() const {
    return carved(math_.rows_bytes(p_.shape.head_dim)) + carved(math_.rows_bytes(p_.shape.head_dim_v)) +
           carved(math_.scratch_bytes()) +
           static_cast<std::size_t>(s_.batch_tiles * s_.batch_heads) * ForwardUnit<Element>::bytes(p_.shape, math_);
  }

  [[nodiscard]] RowRange rows_of(std::int64_t tile) const { return {s_.tiles[tile].begin, s_.tiles[tile].end}; }

  struct Batch {
    RowRange tiles, heads;  // heads of one kv head; without tiles: there is none
    [[nodiscard]] bool none() const { return tiles.begin >= tiles.end; }
  };

  [[nodiscard]] std::int64_t group() const { return p_.shape.heads / p_.shape.heads_kv; }

  [[nodiscard]] Batch batch_at(const ForwardItem& item, std::int64_t tile, std::int64_t head) const {
    if (tile >= item.tiles_end) return {{tile, tile}, {head, head}};
    const std::int64_t end = std::min({head + s_.batch_heads, (head / group() + 1) * group(), item.heads_end});
    return {{tile, batch_end(s_, tile, item.tiles_end)}, {head, end}};
  }
  // All heads of the same rows before other rows.
  [[nodiscard]] Batch next_batch(const ForwardItem& item, const Batch& batch) const {
    if (batch.heads.end < item.heads_end) return batch_at(item, batch.tiles.begin, batch.heads.end);
    return batch_at(item, batch.tiles.end, item.heads_begin);
  }

  void run_batch(const Batch& batch, const Batch& next) {
    const auto [tiles, heads] = batch;
    const std::int64_t count = heads.end - heads.begin;
    const auto unit = [&](std::int64_t tile, std::int64_t head) -> ForwardUnit<Element>& {
      return units_[static_cast<std::size_t>((tile - tiles.begin) * count + head - heads.begin)];
    };
    for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile)
      for (std::int64_t head = heads.begin; head < heads.end; ++head) unit(tile, head).load(rows_of(tile), head);
    fetch_queries(next);
    for_each_segment(tiles, [&](const Segment& segment) {
      const RowRange seen = keys_of_tiles(segment, tiles);
      for_each_tile(segment.k_begin, seen, [&](RowRange keys) {
        pack(keys, heads.begin / group());
        keys.end < seen.end ? fetch_keys({keys.end, std::min(keys.end + kTile, seen.end)}, heads.begin) : fetch_keys(next);
        for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
          TileMask& mask = masks_[static_cast<std::size_t>(tile - tiles.begin)];
          if (!fill_mask(segment, rows_of(tile), keys, mask)) continue;
          for (std::int64_t head = heads.begin; head < heads.end; ++head) attend(unit(tile, head), keys, mask);
        }
      });
    });
    for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile)
      for (std::int64_t head = heads.begin; head < heads.end; ++head) unit(tile, head).store();
  }

  // The segments that tiles of one batch meet.
  template <class Body>
  void for_each_segment(RowRange tiles, const Body& body) const {
    const WorkTile& first = s_.tiles[tiles.begin];
    for (std::int64_t i = first.list_begin; i < first.list_end; ++i) body(p_.segments[s_.segments[i]]);
  }

  // What the next step packs is fetched while this one computes, a step at a time: a document's rows of all heads at once are
  // more lines than a core can wait for, and stop it.
  void fetch(const ConstView& view, RowRange rows, std::int64_t head, std::int64_t dim) const {
    prefetch({row<Element>(view, 0, head), view.token_stride, view.head_stride}, sizeof(Element), rows, 1, dim);
  }
  void fetch_queries(const Batch& batch) const {
    for (std::int64_t tile = batch.tiles.begin; tile < batch.tiles.end; ++tile)
      for (std::int64_t head = batch.heads.begin; head < batch.heads.end; ++head)
        fetch(p_.q, rows_of(tile), head, p_.shape.head_dim);
  }
  void fetch_keys(RowRange keys, std::int64_t head) const {
    fetch(p_.k, keys, head / group(), p_.shape.head_dim);
    fetch(p_.v, keys, head / group(), p_.shape.head_dim_v);
  }
  void fetch_keys(const Batch& batch) const {
    if (batch.none()) return;
    const WorkTile& tile = s_.tiles[batch.tiles.begin];
    if (tile.list_begin == tile.list_end) return;
    const RowRange keys = keys_of_tiles(p_.segments[s_.segments[tile.list_begin]], batch.tiles);
    fetch_keys({keys.begin, std::min(keys.begin + kTile, keys.end)}, batch.heads.begin);
  }

  // All keys that some tile sees; a unit skips what it does not see of them.
  [[nodiscard]] RowRange keys_of_tiles(const Segment& segment, RowRange tiles) const {
    RowRange keys{segment.k_end, segment.k_begin};
    for (std::int64_t tile = tiles.begin; tile < tiles.end; ++tile) {
      const RowRange own = keys_of_rows(segment, rows_of(tile));
      if (own.begin < own.end) keys = {std::min(keys.begin, own.begin), std::max(keys.end, own.end)};
    }
    return keys;
  }

  void pack(RowRange keys, std::int64_t head_kv) {
    const std::int64_t count = keys.end - keys.begin;
    v_rows_ = row<Element>(p_.v, keys.begin, head_kv);
    math_.element.pack_rows(row<Element>(p_.k, keys.begin, head_kv), p_.k.token_stride, count, p_.shape.head_dim, k_);
    math_.element.pack_columns(v_rows_, p_.v.token_stride, count, p_.shape.head_dim_v, v_);
    nonfinite_.reset();
  }

  void attend(const ForwardUnit<Element>& unit, RowRange keys, const TileMask& mask) {
    ForwardTile<Acc> tile = unit.tile();
    tile.keys = keys.end - keys.begin;
    if (mask.cut && !nonfinite_.has_value())
      nonfinite_ = math_.element.nonfinite(v_rows_, p_.v.token_stride, tile.keys, p_.shape.head_dim_v);
    tile.k = k_, tile.v = v_, tile.mask = &mask, tile.careful = mask.cut && *nonfinite_, tile.scratch = tile_scratch_;
    math_.forward(tile);
  }

  const ForwardParams& p_;
  const TileMath<Element>& math_;
  const ForwardSchedule& s_;
  Scratch scratch_;
  void *k_, *v_, *tile_scratch_;
  std::vector<ForwardUnit<Element>> units_;  // [tile of the batch][head of the batch]
  std::vector<TileMask> masks_;              // of the tiles of the batch
  const Element* v_rows_ = nullptr;
  std::optional<bool> nonfinite_;  // of the packed values, once asked for
};

}  // namespace

template <class Element>
void forward(const ForwardParams& params, Parallel& parallel, const TileMath<Element>& math) {
  ForwardLimits limits;
  limits.batch_units = batch_units(params.shape, math);
  limits.workers = parallel.workers();
  const ForwardSchedule schedule = forward_schedule(params.segments, params.segment_count, params.shape.total_q,
                                                    params.shape.heads, params.shape.heads_kv, kTile, limits);
  std::vector<std::unique_ptr<ForwardWorker<Element>>> workers(parallel.workers());
  const auto region = [&] { return TileRegion(math); };
  for_each_item(parallel, static_cast<std::int64_t>(schedule.items.size()), region, [&](std::int64_t item, int worker) {
    auto& own = workers[worker];
    if (!own) own = std::make_unique<ForwardWorker<Element>>(params, math, schedule);
    own->run(schedule.items[item]);
  });
}

void forward(const ForwardParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.shape.dtype, [&](auto element) { forward(params, parallel, tile_math<decltype(element)>(isa)); });
}

template void forward(const ForwardParams& params, Parallel& parallel, const TileMath<float>& math);
template void forward(const ForwardParams& params, Parallel& parallel, const TileMath<double>& math);
template void forward(const ForwardParams& params, Parallel& parallel, const TileMath<BFloat16>& math);
template void forward(const ForwardParams& params, Parallel& parallel, const TileMath<Float16>& math);

}  // namespace hetsp::attention::cpu
