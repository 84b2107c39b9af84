// The warps of the kernel of dk and dv that bring: one walks the work and loads tiles, others load statistics; see
// split_keys.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"
#include "hetsp/attention/cuda/hopper/split_keys_shared.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

// All panels of a tile whose rows begin at `row` of the tensor, each by a lane. All lanes call.
template <class Tile>
__device__ inline void load_tile(unsigned char* tile, const TensorMap& map, Barrier& full, int head, int row, int lane) {
  static_assert(Tile::panels <= 32, "a lane for each");
  if (lane < Tile::panels) load_box(tile + lane * Tile::panel_bytes, map, full, lane * 64, head, row);
}

template <class Config>
struct SplitKeysProducer {
  using Shared = SplitKeysShared<Config>;

  const BackwardParams& params;
  const SplitMaps& maps;
  Shared& shared;
  int lane;
  unsigned turn = 0, items = 0;        // stages, K and V filled so far
  std::int32_t key0 = 0, head_kv = 0;  // the item

  __device__ void emit(const Step& step) {
    const unsigned stage = turn % Shared::stages;
    const bool tile = (step.flags & (step_finishes | step_stops)) == 0;
    if (step.flags & step_loads_v) {
      wait(shared.item_empty, items++ % 2 ^ 1);
      if (lane == 0) arrive_and_expect(shared.item_full, Shared::K::bytes + Shared::V::bytes);
      __syncwarp();
      load_tile<typename Shared::K>(shared.k, maps.k, shared.item_full, head_kv, key0, lane);
      load_tile<typename Shared::V>(shared.v, maps.v, shared.item_full, head_kv, key0, lane);
    }
    wait(shared.empty[stage], turn / Shared::stages % 2 ^ 1);
    if (lane == 0) {
      shared.steps[stage] = step;
      arrive(shared.told[stage]);
      if (tile) {
        arrive_and_expect(shared.full[stage], Shared::Q::bytes + Shared::Dout::bytes);
      } else {
        arrive(shared.full[stage]);
      }
    }
    __syncwarp();
    if (tile) {
      load_tile<typename Shared::Q>(shared.q[stage], maps.q, shared.full[stage], step.head, step.row0, lane);
      load_tile<typename Shared::Dout>(shared.dout[stage], maps.dout, shared.full[stage], step.head, step.row0, lane);
    }
    ++turn;
  }
};

template <class Config>
__device__ inline void produce_split_keys(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                                          std::int32_t together, const SplitMaps& maps, SplitKeysShared<Config>& shared) {
  SplitKeysProducer<Config> producer{params, maps, shared, lane_index()};
  const int heads_kv = static_cast<int>(params.shape.heads_kv), share = static_cast<int>(params.shape.heads) / heads_kv;
  constexpr int size = Config::tile.keys, parts = static_cast<int>(tile_rows) / size;
  const std::int32_t tiles = *keys.count * parts;
  for (;;) {
    std::int32_t number = 0;
    if (producer.lane == 0) number = atomicAdd(next_item, 1);
    number = shuffle(number, 0);
    if (number >= tiles * heads_kv) break;
    const Item item = item_at(number, tiles, heads_kv, together);
    const std::int32_t index = item.tile, head_kv = item.head;
    const Tile& tile = keys.tiles[index / parts];
    const int before = index % parts * size, rows = smaller(tile.rows - before, size);
    if (rows <= 0) continue;
    const auto key0 = static_cast<std::int32_t>(tile.row0) + before;
    producer.key0 = key0, producer.head_kv = head_kv;
    int loads_v = step_loads_v;
    for (std::int32_t i = tile.first; i <= tile.last; ++i)  // read again each time: registers are short
      walk_band<Config::tile.query_step, size>(band_of(params.segments[i], params.shape), key0, rows, head_kv * share, share,
                                               [&](Step& step) {
                                                 step.flags |= loads_v, loads_v = 0;
                                                 producer.emit(step);
                                               });
    producer.emit({key0, head_kv, step_finishes, {0, static_cast<std::int16_t>(rows)}, {}, 0, 0});
  }
  producer.emit({0, 0, step_stops, {}, {}, 0, 0});
}

// Another warp, for 32 rows of every step: its lse and D. Their way from memory is as long as a step, and the walk does not
// wait for it. A row whose lse or D is not finite holds NaN or infinity, or sees one: it is marked by lse = NaN.
template <class Shared>
__device__ inline void bring_statistics(const BackwardParams& params, Shared& shared, int warp) {
  const int place = 32 * warp + lane_index(), row = statistic_row(place);
  for (unsigned turn = 0;; ++turn) {
    const unsigned stage = turn % Shared::stages;
    wait(shared.told[stage], turn / Shared::stages % 2);
    const Step& step = shared.steps[stage];
    if (step.flags & step_stops) return arrive(shared.full[stage]);
    if ((step.flags & step_finishes) == 0) {
      const std::int64_t at = step.head * params.shape.total_q + step.row0 + row;
      const bool inside = step.rows.begin <= row && row < step.rows.end;
      float lse = inside ? static_cast<const float*>(params.lse)[at] : -INFINITY;
      const float delta = inside ? static_cast<const float*>(params.delta)[at] : 0.0f;
      const bool unfit = !(lse < INFINITY && std::abs(delta) < INFINITY);
      if (unfit) lse = NAN;
      shared.delta[stage][place] = delta;
      shared.lse[stage][place] = lse == -INFINITY ? INFINITY : lse * log2_e;
      const int any = __any_sync(0xffffffffu, unfit);
      if (lane_index() == 0) shared.unfit[stage][warp] = any;
    }
    arrive(shared.full[stage]);  // every lane: its statistics are there
  }
}

}  // namespace hetsp::attention::cuda::hopper
