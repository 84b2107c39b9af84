// What a block of the forward shares: its tiles and barriers in shared memory, and how its pipelines count.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward.h"
#include "hetsp/attention/cuda/hopper/forward_output.cuh"
#include "hetsp/attention/cuda/hopper/forward_steps.cuh"
#include "hetsp/attention/cuda/hopper/mbarrier.cuh"
#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

template <class ElementT, int Dim, int DimV, int Keys, int Stages = 2, bool PingPong = true, bool Overlap = true,
          bool Counted = true>
struct ForwardConfig {
  using Element = ElementT;
  static constexpr int dim = Dim, dim_v = DimV, keys = Keys, stages = Stages;
  static constexpr bool ping_pong = PingPong, overlap = Overlap, counted = Counted;
  static constexpr int rows = static_cast<int>(tile_rows);
  using QTile = SharedTile<rows, Dim>;
  using KTile = SharedTile<Keys, Dim>;
  using VTile = SharedTile<Keys, DimV>;
};

constexpr int forward_threads = (1 + consumer_groups) * 128;
constexpr int consumer_warps = 4 * consumer_groups;
// Registers of a producer and of a consumer thread: together no more than 3 * 168, what the launch gives.
constexpr int producer_registers = 56, consumer_registers = 224;

enum : int { barrier_turn = 1, barrier_tail = barrier_turn + consumer_groups };  // named barriers

struct ForwardArguments {
  ForwardMaps maps;
  ForwardParams params;
  TileList queries;
  std::int32_t* next_item;
};

template <class Config>
struct alignas(1024) ForwardShared {
  unsigned char q[Config::QTile::bytes];
  unsigned char k[Config::stages][Config::KTile::bytes];
  unsigned char v[Config::stages][Config::VTile::bytes];
  KeyStep step[Config::stages];  // of k's stage
  QueryItem item;
  Barrier q_full, q_empty;
  Barrier k_full[Config::stages], k_empty[Config::stages], v_full[Config::stages], v_empty[Config::stages];

  HETSP_INLINE void begin() {  // one thread
    init(q_full, 1), init(q_empty, consumer_warps);
    for (int i = 0; i < Config::stages; ++i) {
      init(k_full[i], 1), init(k_empty[i], consumer_warps);
      init(v_full[i], 1), init(v_empty[i], consumer_warps);
    }
    fence_barrier_init();
  }
};

// Where a pipeline stands: its stage, and the parity of that stage's phase.
template <int Stages>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  HETSP_INLINE void next() {
    if (++stage == Stages) stage = 0, parity ^= 1u;
  }
};

}  // namespace hetsp::attention::cuda::hopper
