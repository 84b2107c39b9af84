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
  static constexpr int dim = tile.dim, dim_v = tile.dim_v, step_rows = tile.step_rows;
};

constexpr int weight_buffers = 2;

// Named barriers besides both_consumers: a buffer of weights is full, is empty; by its number.
enum SplitMeeting : int { weights_full = 2, weights_empty = weights_full + weight_buffers };

template <class Config>
struct SplitKeysShared {
  static constexpr int queries = Config::step_rows;
  using K = SharedTile<split_keys, Config::dim>;
  using V = SharedTile<split_keys, Config::dim_v>;
  using Q = SharedTile<queries, Config::dim>;
  using Dout = SharedTile<queries, Config::dim_v>;

  alignas(1024) unsigned char k[K::bytes];
  unsigned char v[V::bytes];
  unsigned char q[stages][Q::bytes], dout[stages][Dout::bytes];
  Four weights[weight_buffers][queries / 8][warpgroup_threads];  // as the threads hold them
  alignas(16) float lse[stages][queries];  // times log2(e), +inf for rows that see nothing; in the order of statistic_row
  float delta[stages][queries];
  Step steps[stages];
  std::int32_t unfit[stages];  // some of the rows have lse = NaN here
  Barrier full[stages], empty[stages];  // Q, dO, their statistics and the record
  Barrier item_full, item_empty;        // K and V
};

template <class Shared>
__device__ inline void initialise_split_keys(Shared& shared) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) init(shared.full[i], 33), init(shared.empty[i], consumer_warps);
    init(shared.item_full, 1), init(shared.item_empty, consumer_warps);
    fence_barrier_init();
  }
  __syncthreads();
}

}  // namespace hetsp::attention::cuda::hopper
