// Shared memory of the kernel of dq and the barriers in it; see split_queries.cuh.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_steps.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_shared.cuh"

namespace hetsp::attention::cuda::hopper {

// What the producer says of a tile with its Q and dO. rows < 0 ends the kernel.
struct SplitItem {
  std::int32_t row0, rows, head;
  std::int32_t first, last;  // its segments
  std::int32_t is_empty;     // its rows see nothing: no step follows, and Q and dO are not there
};

template <class Config>
struct SplitQueriesShared {
  static constexpr int keys = Config::tile.key_step;
  static constexpr int k_stages = 2, v_stages = Config::dim == 256 ? 1 : 2;  // as many as fit
  using Q = SharedTile<split_queries, Config::dim>;
  using Dout = SharedTile<split_queries, Config::dim_v>;
  using K = SharedTile<keys, Config::dim>;
  using V = SharedTile<keys, Config::dim_v>;

  alignas(1024) unsigned char q[Q::bytes];
  unsigned char dout[Dout::bytes];
  unsigned char k[k_stages][K::bytes], v[v_stages][V::bytes];
  KeyStep step[k_stages];  // of k's stage
  SplitItem item;
  Barrier q_full, q_empty;  // Q, dO and the item
  Barrier k_full[k_stages], k_empty[k_stages], v_full[v_stages], v_empty[v_stages];
};

template <class Shared>
__device__ inline void initialise_split_queries(Shared& shared) {
  if (threadIdx.x == 0) {
    init(shared.q_full, 1), init(shared.q_empty, consumer_warps);
    for (int i = 0; i < Shared::k_stages; ++i) init(shared.k_full[i], 1), init(shared.k_empty[i], consumer_warps);
    for (int i = 0; i < Shared::v_stages; ++i) init(shared.v_full[i], 1), init(shared.v_empty[i], consumer_warps);
    fence_barrier_init();
  }
  __syncthreads();
}

}  // namespace hetsp::attention::cuda::hopper
