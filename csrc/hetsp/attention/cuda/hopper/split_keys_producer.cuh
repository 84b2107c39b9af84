// The warp of the kernel of dk and dv that walks the work and loads; see split_keys.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_shared.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

// All panels of a tile whose rows begin at `row` of the tensor.
template <class Tile>
__device__ inline void load_tile(unsigned char* tile, const TensorMap& map, Barrier& full, int head, int row) {
#pragma unroll
  for (int panel = 0; panel < Tile::panels; ++panel)
    load_box(tile + panel * Tile::panel_bytes, map, full, panel * 64, head, row);
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

  // A row whose lse or D is not finite holds NaN or infinity, or sees one: it is marked by lse = NaN.
  __device__ void statistics(const Step& step, unsigned stage) {
    const std::int64_t base = step.head * params.shape.total_q + step.row0;
    bool unfit = false;
#pragma unroll 1  // more would not fit the registers
    for (int i = 0; i < Shared::queries; i += 32) {
      const int row = statistic_row(lane) + i;
      const bool inside = step.rows.begin <= row && row < step.rows.end;
      float lse = inside ? static_cast<const float*>(params.lse)[base + row] : -INFINITY;
      const float delta = inside ? static_cast<const float*>(params.delta)[base + row] : 0.0f;
      if (!(lse < INFINITY && std::abs(delta) < INFINITY)) unfit = true, lse = NAN;
      shared.delta[stage][lane + i] = delta;
      shared.lse[stage][lane + i] = lse == -INFINITY ? INFINITY : lse * log2_e;
    }
    unfit = __any_sync(0xffffffffu, unfit);
    if (lane == 0) shared.unfit[stage] = unfit;
  }

  __device__ void emit(const Step& step) {
    const unsigned stage = turn % stages;
    const bool tile = (step.flags & (step_finishes | step_stops)) == 0;
    if (step.flags & step_loads_v) {
      wait(shared.item_empty, items++ % 2 ^ 1);
      if (lane == 0) {
        arrive_and_expect(shared.item_full, Shared::K::bytes + Shared::V::bytes);
        load_tile<typename Shared::K>(shared.k, maps.k, shared.item_full, head_kv, key0);
        load_tile<typename Shared::V>(shared.v, maps.v, shared.item_full, head_kv, key0);
      }
    }
    wait(shared.empty[stage], turn / stages % 2 ^ 1);
    if (lane == 0) {
      shared.steps[stage] = step;
      if (tile) {
        arrive_and_expect(shared.full[stage], Shared::Q::bytes + Shared::Dout::bytes);
        load_tile<typename Shared::Q>(shared.q[stage], maps.q, shared.full[stage], step.head, step.row0);
        load_tile<typename Shared::Dout>(shared.dout[stage], maps.dout, shared.full[stage], step.head, step.row0);
      } else {
        arrive(shared.full[stage]);
      }
    }
    if (tile) statistics(step, stage);
    arrive(shared.full[stage]);  // every lane: its statistics are there
    ++turn;
  }
};

template <class Config>
__device__ inline void produce_split_keys(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                                          const SplitMaps& maps, SplitKeysShared<Config>& shared) {
  SplitKeysProducer<Config> producer{params, maps, shared, lane_index()};
  const int heads_kv = static_cast<int>(params.shape.heads_kv), share = static_cast<int>(params.shape.heads) / heads_kv;
  constexpr int parts = static_cast<int>(tile_rows) / split_keys;
  for (;;) {
    std::int32_t item = 0;
    if (producer.lane == 0) item = atomicAdd(next_item, 1);
    item = shuffle(item, 0);
    const std::int32_t index = item / heads_kv, head_kv = item - index * heads_kv;
    if (index / parts >= *keys.count) break;
    const Tile& tile = keys.tiles[index / parts];
    const int before = index % parts * split_keys, rows = smaller(tile.rows - before, split_keys);
    if (rows <= 0) continue;
    const auto key0 = static_cast<std::int32_t>(tile.row0) + before;
    producer.key0 = key0, producer.head_kv = head_kv;
    int loads_v = step_loads_v;
    for (std::int32_t i = tile.first; i <= tile.last; ++i)  // read again each time: registers are short
      walk_band<Config::step_rows, split_keys>(band_of(params.segments[i], params.shape), key0, rows, head_kv * share, share,
                                               [&](Step& step) {
                                                 step.flags |= loads_v, loads_v = 0;
                                                 producer.emit(step);
                                               });
    producer.emit({key0, head_kv, step_finishes, {0, static_cast<std::int16_t>(rows)}, {}, 0, 0});
  }
  producer.emit({0, 0, step_stops, {}, {}, 0, 0});
}

}  // namespace hetsp::attention::cuda::hopper
