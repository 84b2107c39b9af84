// The warps of the backward that move data: one walks the work and loads, two carry dQ away; see backward.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/hopper/backward_shared.cuh"
#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Shared>
struct BackwardProducer {
  const BackwardParams& params;
  const BackwardMaps& maps;
  Shared& shared;
  int lane;
  unsigned turn = 0, runs = 0, items = 0;  // stages, K and V filled so far
  std::int32_t key0 = 0, head_kv = 0;  // the item

  // All panels of `rows` rows from `row`, as one barrier counts them.
  template <int Rows>
  __device__ void load(unsigned char* tile, const TensorMap& map, Barrier& full, int head, int row) {
#pragma unroll
    for (int panel = 0; panel < Shared::panels; ++panel)
#pragma unroll
      for (int part = 0; part < Rows; part += box_rows)
        load_box(tile + panel * Rows * 128 + part * 128, map, full, panel * 64, head, row + part);
  }

  // A row whose lse or D is not finite holds NaN or infinity, or sees one: it is marked by lse = NaN.
  __device__ void statistics(const Step& step, unsigned stage) {
    const std::int64_t base = step.head * params.shape.total_q + step.row0;
    bool unfit = false;
#pragma unroll 1  // more would not fit the registers
    for (int i = 0; i < Shared::Queries; i += 32) {
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
    const unsigned stage = turn % stages, parity = turn / stages % 2;
    const bool tile = (step.flags & (step_finishes | step_stops)) == 0;
    wait(shared.q_empty[stage], parity ^ 1);
    if (lane == 0) {
      shared.steps[stage] = step;
      if (tile) {
        arrive_and_expect(shared.q_full[stage], Shared::Rows::bytes);
        load<Shared::Queries>(shared.q[stage], maps.q, shared.q_full[stage], step.head, step.row0);
      } else {
        arrive(shared.q_full[stage]);
      }
    }
    if (step.flags & step_begins_run) {
      wait(shared.k_empty, runs % 2 ^ 1);
      if (lane == 0) {
        arrive_and_expect(shared.k_full, Shared::Keys::bytes);
        load<tile_rows>(shared.k, maps.k, shared.k_full, head_kv, key0);
      }
      ++runs;
    }
    if (step.flags & step_loads_v) {
      wait(shared.v_empty, items % 2 ^ 1);
      if (lane == 0) {
        arrive_and_expect(shared.v_full, Shared::Keys::bytes);
        load<tile_rows>(shared.v, maps.v, shared.v_full, head_kv, key0);
      }
      ++items;
    }
    wait(shared.dout_empty[stage], parity ^ 1);
    if (tile) {
      if (lane == 0) {
        arrive_and_expect(shared.dout_full[stage], Shared::Rows::bytes);
        load<Shared::Queries>(shared.dout[stage], maps.dout, shared.dout_full[stage], step.head, step.row0);
      }
      statistics(step, stage);
    } else if (lane == 0) {
      arrive(shared.dout_full[stage]);
    }
    arrive(shared.dout_full[stage]);  // every lane: its statistics are there
    ++turn;
  }
};

template <class Shared>
__device__ inline void produce(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                               const BackwardMaps& maps, Shared& shared) {
  BackwardProducer<Shared> producer{params, maps, shared, lane_index()};
  const int heads_kv = static_cast<int>(params.shape.heads_kv), share = static_cast<int>(params.shape.heads) / heads_kv;
  for (;;) {
    std::int32_t item = 0;
    if (producer.lane == 0) item = atomicAdd(next_item, 1);
    item = shuffle(item, 0);
    const std::int32_t index = item / heads_kv, head_kv = item - index * heads_kv;
    if (index >= *keys.count) break;
    const Tile& tile = keys.tiles[index];
    const auto key0 = static_cast<std::int32_t>(tile.row0);
    producer.key0 = key0, producer.head_kv = head_kv;
    int loads_v = step_loads_v;
    for (std::int32_t i = tile.first; i <= tile.last; ++i)  // read again each time: registers are short
      walk_band<Shared::Queries>(band_of(params.segments[i], params.shape), key0, tile.rows, head_kv * share, share,
                                 [&](Step& step) {
                                   step.flags |= loads_v, loads_v = 0;
                                   producer.emit(step);
                                 });
    producer.emit({key0, head_kv, step_finishes, {0, static_cast<std::int16_t>(tile.rows)}, {}, 0, 0});
  }
  producer.emit({0, 0, step_stops, {}, {}, 0, 0});
}

// The producer's second and third warp, one for each consumer: adds dQ to memory.
template <class Shared>
__device__ inline void carry_dq(const BackwardMaps& maps, Shared& shared, int consumer) {
  named_arrive(sums_empty + consumer, 160);
  for (;;) {
    named_sync(sums_full + consumer, 160);
    const int row = shared.target[consumer].row0, head = shared.target[consumer].head;
    if (row < 0) return;
    if (lane_index() == 0) {
#pragma unroll
      for (int panel = 0; panel < 2; ++panel) {
        const int column = 32 * panel + (Shared::Dim == 128 ? 64 * consumer : 0);
        reduce_add_box(maps.dq_sums, shared.dq[consumer] + panel * Shared::Sums::panel_bytes, column, head,
                       row + (Shared::Dim == 64 ? 64 * consumer : 0));
      }
      commit_bulk();
      wait_bulk_read<0>();
    }
    named_arrive(sums_empty + consumer, 160);
  }
}

}  // namespace hetsp::attention::cuda::hopper
