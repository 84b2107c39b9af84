// What a block of the forward shares: its tiles and barriers in shared memory, and how its pipelines count.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda/hopper/forward.h"
#include "hetsp/attention/cuda/hopper/forward_output.cuh"
#include "hetsp/attention/cuda/hopper/forward_steps.cuh"
#include "hetsp/attention/cuda/hopper/mbarrier.cuh"
#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

struct ForwardArguments;

// One instantiation: a bucket of forward_tile() by its `dim`.
template <class ElementT, int Dim, bool Squashed>
struct ForwardConfig {
  using Element = ElementT;
  static constexpr bool squashed = Squashed;  // see ScoreFactors
  static constexpr bool chained = false;      // see forward_chain.cuh
  using Arguments = ForwardArguments;
  using Item = QueryItem;
  static constexpr int rows = static_cast<int>(tile_rows);
  static constexpr int dim = Dim, dim_v = Dim == 192 ? 128 : Dim, keys = Dim == 256 ? 80 : 128;
  static constexpr int stages = 2;                  // of K and of V
  static constexpr int q_stages = Dim <= 128 ? 2 : 1;  // as many as fit
  static constexpr bool carry = q_stages > 1;       // a tile's last values are added beside the next tile's first scores
  // Blocks of 8 columns that are weighed before the values of the last step are waited for. More of them were slower; with a
  // head_dim of 256 there are no registers for any.
  static constexpr int early = Dim == 256 ? 0 : Dim == 128 ? 6 : keys / 32;
  // How far the weights of a row may grow above that of its first maximum before it gets a new one. Far from where O could
  // overflow, or a weight in float16; and seldom reached: 14 in units of the scores.
  static constexpr float growth = std::is_same_v<Element, Float16> ? 0x1p14f : 0x1p20f;
  using QTile = SharedTile<rows, dim>;
  using KTile = SharedTile<keys, dim>;
  using VTile = SharedTile<keys, dim_v>;
};

constexpr int forward_threads = (1 + consumer_groups) * 128;
constexpr int consumer_warps = 4 * consumer_groups;
// Registers of a producer and of a consumer thread: together no more than 3 * 168, what the launch gives.
constexpr int producer_registers = 56, consumer_registers = 224;

enum : int { barrier_turn = 1 };  // the first of the consumers' named barriers

// From a product q . k to a weight 2^(factor s - top): s is the product itself; or, where `squashed`, softcap - 2 softcap /
// (2^(inner product) + 1), which is softcap tanh(scale product / softcap); or inner product, where the scale is not positive: a
// factor of the maximum has to be.
struct ScoreFactors {
  float factor, inner, softcap;
  bool squashed;
};

inline ScoreFactors score_factors(const Score& score) {
  const bool capped = score.softcap > 0, squashed = capped || !(score.softmax_scale > 0);
  const double inner = capped ? score.softmax_scale / score.softcap * 2 * kLog2E : score.softmax_scale;
  return {static_cast<float>(squashed ? kLog2E : score.softmax_scale * kLog2E), static_cast<float>(inner),
          static_cast<float>(score.softcap), squashed};
}

struct ForwardArguments {
  ForwardMaps maps;
  ForwardParams params;
  ScoreFactors factors;
  TileList queries;
  std::int32_t* next_item;
  std::int32_t together;  // heads at a time, see item_order.h
};

// The softmax state of a thread's two rows, `sum` of its own columns.
struct alignas(16) SoftmaxPair {
  float top[2], sum[2];
};

template <class Config>
struct alignas(1024) ForwardShared {
  unsigned char q[Config::q_stages][Config::QTile::bytes];
  unsigned char k[Config::stages][Config::KTile::bytes];
  unsigned char v[Config::stages][Config::VTile::bytes];
  // With `carry`, of each consumer warp: the states of the item before, and when they have been read its rows on their way out.
  alignas(128) unsigned char rows[Config::carry ? consumer_warps : 1][Config::carry ? 16 * Config::dim_v * 2 : 16];
  KeyStep step[Config::stages];  // of k's stage
  std::int32_t sweep_from[Config::stages];  // of v's stage: its rows from here on are to be zeroed; < 0: the end
  // An item is read until its rows are written, beside the first step of the next: three may be told before that is over.
  static constexpr int items = 4;
  typename Config::Item item[items];
  Barrier q_full[Config::q_stages], q_empty[Config::q_stages];
  Barrier k_full[Config::stages], k_empty[Config::stages];
  Barrier v_here[Config::stages], v_full[Config::stages], v_empty[Config::stages];  // brought, swept, used

  HETSP_INLINE void begin() {  // one thread
    for (int i = 0; i < Config::q_stages; ++i) init(q_full[i], 1), init(q_empty[i], consumer_warps);
    for (int i = 0; i < Config::stages; ++i) {
      init(k_full[i], 1), init(k_empty[i], consumer_warps);
      init(v_here[i], 1), init(v_full[i], 1), init(v_empty[i], consumer_warps);
    }
    fence_barrier_init();
  }
};

constexpr int most_shared_bytes = 227 * 1024;  // of a block

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
