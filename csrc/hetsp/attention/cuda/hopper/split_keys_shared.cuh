// Shared memory of the kernel of dk and dv and the barriers in it; see split_keys.cuh.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_shared.cuh"
#include "hetsp/attention/cuda/hopper/backward_split.h"
#include "hetsp/attention/cuda/hopper/dq_sums.cuh"

namespace hetsp::attention::cuda::hopper {

template <class ElementT, int Dim>
struct SplitConfig {
  using Element = ElementT;
  static constexpr SplitTile tile = split_tile(Dim);
  static constexpr int dim = tile.dim, dim_v = tile.dim_v;
  static constexpr bool joint = tile.keys == 128;  // each warpgroup has 64 keys, and computes all for them
  static constexpr bool held = dim == 192;         // K and V stay in registers, as left operands of all products
};

constexpr int weight_buffers = 2;

// Named barriers besides both_consumers: a buffer of weights is full, is empty; by its number.
enum SplitMeeting : int { weights_full = 2, weights_empty = weights_full + weight_buffers };

template <class Config>
struct SplitKeysShared {
  static constexpr int keys = Config::tile.keys, queries = Config::tile.query_step, stages = Config::tile.stages;
  using K = SharedTile<keys, Config::dim>;
  using V = SharedTile<keys, Config::dim_v>;
  using Q = SharedTile<queries, Config::dim>;
  using Dout = SharedTile<queries, Config::dim_v>;

  alignas(1024) unsigned char k[K::bytes];
  unsigned char v[V::bytes];
  unsigned char q[stages][Q::bytes], dout[stages][Dout::bytes];
  Four weights[Config::joint ? 1 : weight_buffers][Config::joint ? 1 : queries / 8]
              [warpgroup_threads];  // as the threads hold them
  alignas(16) float lse[stages][queries];  // times log2(e), +inf for rows that see nothing; in the order of statistic_row
  float delta[stages][queries];
  Step steps[stages];
  static constexpr int statistic_warps = queries / 32;
  std::int32_t unfit[stages][statistic_warps];  // some of its rows have lse = NaN here
  Barrier told[stages], full[stages], empty[stages];  // the record; that, Q, dO and their statistics
  Barrier item_full, item_empty;                      // K and V
};

template <class Shared>
__device__ inline void initialise_split_keys(Shared& shared) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared::stages; ++i) {
      init(shared.told[i], 1), init(shared.full[i], 1 + Shared::queries), init(shared.empty[i], consumer_warps);
    }
    init(shared.item_full, 1), init(shared.item_empty, consumer_warps);
    fence_barrier_init();
  }
  __syncthreads();
}

}  // namespace hetsp::attention::cuda::hopper
