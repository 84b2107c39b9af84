// Shared memory of the backward and the barriers in it; see backward.cuh.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/mbarrier.cuh"
#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int consumers = 2, consumer_warps = 8, backward_threads = 384;
constexpr int stages = 2;
constexpr int box_rows = 64, box_bytes = box_rows * 128;
constexpr float log2_e = 1.44269504088896341f;

// Named barriers: of both consumers; of a consumer and the warp that carries its dQ away.
enum Meeting : int { both_consumers = 1, sums_full = 2, sums_empty = 4 };

// Where a dQ belongs; a negative row0: there are no more. Rows outside `rows` of the tile are another's, and get 0.
struct Target {
  std::int32_t row0, head;
  Range rows;
};

template <int Dim_, int Queries_>
struct BackwardShared {
  static constexpr int Dim = Dim_, Queries = Queries_, panels = Dim / 64;
  static_assert((Dim == 128 && Queries == 64) || (Dim == 64 && Queries == 128), "each consumer computes 64 x 64 of dQ");
  using Keys = SharedTile<tile_rows, Dim>;
  using Rows = SharedTile<Queries, Dim>;
  using Scores = SharedTile<tile_rows, Queries>;
  using Sums = SharedTile<64, 64, 4>;

  alignas(1024) unsigned char k[Keys::bytes];
  unsigned char v[Keys::bytes];
  unsigned char q[stages][Rows::bytes], dout[stages][Rows::bytes];
  unsigned char ds[2][Scores::bytes];  // dS^T: rows are keys
  unsigned char dq[consumers][Sums::bytes];
  alignas(16) float lse[stages][Queries];  // times log2(e), +inf for rows that see nothing; in the order of statistic_row
  float delta[stages][Queries];
  Step steps[stages];
  std::int32_t unfit[stages];  // some of the rows have lse = NaN here
  float cap;  // softcap log2(e)
  Target target[consumers];
  Barrier q_full[stages], q_empty[stages], dout_full[stages], dout_empty[stages];
  Barrier k_full, k_empty, v_full, v_empty;
};

// Statistics lie as a thread reads them, four at a time: those of the rows 16 a + 2 t, + 1, + 8, + 9 together. The row at a
// place, and the place of a row:
__device__ constexpr int statistic_row(int place) {
  return place / 16 * 16 + place / 2 % 2 * 8 + place / 4 % 4 * 2 + place % 2;
}
__device__ constexpr int statistic_place(int row) { return row / 16 * 16 + row / 2 % 4 * 4 + row / 8 % 2 * 2 + row % 2; }

template <class Shared>
__device__ inline void initialise(const BackwardParams& params, Shared& shared) {
  if (threadIdx.x == 0) {
    shared.cap = log2_e * static_cast<float>(params.score.softcap);
    for (int i = 0; i < stages; ++i) {
      init(shared.q_full[i], 1), init(shared.q_empty[i], consumer_warps);
      init(shared.dout_full[i], 33), init(shared.dout_empty[i], consumer_warps);
    }
    init(shared.k_full, 1), init(shared.k_empty, consumer_warps), init(shared.v_full, 1), init(shared.v_empty, consumer_warps);
    fence_barrier_init();
  }
  __syncthreads();
}

}  // namespace hetsp::attention::cuda::hopper
