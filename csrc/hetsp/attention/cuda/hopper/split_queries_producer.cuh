// The warp of the kernel of dq that walks the work and loads; see split_queries.cuh.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/item_order.h"
#include "hetsp/attention/cuda/hopper/split_keys_producer.cuh"
#include "hetsp/attention/cuda/hopper/split_queries_shared.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
struct SplitQueriesProducer {
  using Shared = SplitQueriesShared<Config>;

  const BackwardParams& params;
  const SplitMaps& maps;
  Shared& shared;
  int lane;
  unsigned items = 0, turn = 0;

  __device__ void tell(const SplitItem& item) {
    wait(shared.q_empty, items++ % 2 ^ 1);
    const bool none = item.rows < 0 || item.is_empty != 0;
    if (lane == 0) {
      shared.item = item;
      if (none) {
        arrive(shared.q_full);
      } else {
        arrive_and_expect(shared.q_full, Shared::Q::bytes + Shared::Dout::bytes);
      }
    }
    __syncwarp();
    if (none) return;
    load_tile<typename Shared::Q>(shared.q, maps.q, shared.q_full, item.head, item.row0, lane);
    load_tile<typename Shared::Dout>(shared.dout, maps.dout, shared.q_full, item.head, item.row0, lane);
  }

  // Brings the step's keys and values, and looks for the step after it: the consumers are told which is the last.
  __device__ bool bring(KeyWalk<Shared::keys, BackwardParams>& walk, int head) {
    const unsigned k_stage = turn % Shared::k_stages, v_stage = turn % Shared::v_stages;
    wait(shared.k_empty[k_stage], turn / Shared::k_stages % 2 ^ 1);
    if (lane == 0) walk.describe(shared.step[k_stage]), shared.step[k_stage].clear_from = walk.strangers();
    const std::int32_t token = walk.token();
    const bool more = walk.advance();
    if (lane == 0) {
      shared.step[k_stage].is_last = more ? 0 : 1;
      arrive_and_expect(shared.k_full[k_stage], Shared::K::bytes);
    }
    __syncwarp();
    load_tile<typename Shared::K>(shared.k[k_stage], maps.k, shared.k_full[k_stage], head, token, lane);
    wait(shared.v_empty[v_stage], turn / Shared::v_stages % 2 ^ 1);
    if (lane == 0) arrive_and_expect(shared.v_full[v_stage], Shared::V::bytes);
    __syncwarp();
    load_tile<typename Shared::V>(shared.v[v_stage], maps.v, shared.v_full[v_stage], head, token, lane);
    ++turn;
    return more;
  }

  __device__ void run(const TileList& queries, std::int32_t* next_item, std::int32_t together) {
    const auto heads = static_cast<std::int32_t>(params.shape.heads);
    const std::int32_t share = heads / static_cast<std::int32_t>(params.shape.heads_kv), tiles = *queries.count;
    std::int32_t number = lane == 0 ? atomicAdd(next_item, 1) : 0;
    number = shuffle(number, 0);
#pragma unroll 1
    while (number < tiles * heads) {
      const std::int32_t following = lane == 0 ? atomicAdd(next_item, 1) : 0;  // its way to memory passes beside the copies
      const Item item = item_at(number, tiles, heads, together);
      const Tile tile = queries.tiles[item.tile];
      KeyWalk<Shared::keys, BackwardParams> walk(params, tile);
      bool more = walk.advance();
      tell({static_cast<std::int32_t>(tile.row0), tile.rows, item.head, tile.first, tile.last, more ? 0 : 1});
#pragma unroll 1
      while (more) more = bring(walk, item.head / share);
      number = shuffle(following, 0);
    }
    tell({0, -1, 0, 0, -1, 1});
  }
};

}  // namespace hetsp::attention::cuda::hopper
