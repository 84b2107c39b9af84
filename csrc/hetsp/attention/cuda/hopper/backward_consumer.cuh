// A warpgroup of the backward that computes; see backward.cuh.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_gradients.cuh"
#include "hetsp/attention/cuda/hopper/backward_shared.cuh"
#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/dq_sums.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"

namespace hetsp::attention::cuda::hopper {

// Zeroes the rows of a tile for which keep(row) is false, by both consumers; they meet afterwards.
template <class Tile, class Keep>
__device__ inline void zero_rows(unsigned char* tile, const Keep& keep) {
  const int thread = static_cast<int>(threadIdx.x) - warpgroup_threads;
  constexpr int chunks = Tile::rows * 8;  // of a panel; the swizzle stays within a row
#pragma unroll
  for (int panel = 0; panel < Tile::panels; ++panel)
    for (int chunk = thread; chunk < chunks; chunk += consumers * warpgroup_threads)
      if (!keep(chunk / 8)) *reinterpret_cast<Four*>(tile + panel * Tile::panel_bytes + chunk * 16) = Four{{0, 0, 0, 0}};
  fence_async_proxy();
  named_sync(both_consumers, consumers * warpgroup_threads);
}
template <class Tile>
__device__ inline void zero_rows_outside(unsigned char* tile, Range range) {
  zero_rows<Tile>(tile, [&](int row) { return range.begin <= row && row < range.end; });
}

// The rows of the query tile that a key sees, from the thread's first column: column c is row `c` of it.
struct Seen {
  int begin, end;
  __device__ bool holds(int column) const { return begin <= column && column < end; }
};
__device__ inline Seen rows_seen(const Step& step, int key, int first) {
  if (key < step.keys.begin || key >= step.keys.end) return {0, 0};
  return {larger<int>(step.rows.begin, key + step.low) - first, smaller<int>(step.rows.end, key + step.high) - first};
}

struct alignas(8) Two {
  float low, high;
};

// The descriptor of what lies `bytes` further on. One sum each, so that a loop does not keep all of them in registers.
__device__ inline std::uint64_t beyond(std::uint64_t descriptor, int bytes) {
  return descriptor + static_cast<std::uint64_t>(bytes >> 4);
}

template <class Element, class Shared, bool Softcap>
struct BackwardConsumer {
  static constexpr int Dim = Shared::Dim, Queries = Shared::Queries, scores = Queries / 2, k_steps = Queries / 16;
  using Keys = typename Shared::Keys;
  using Rows = typename Shared::Rows;
  using Scores = typename Shared::Scores;

  const BackwardParams& params;
  Shared& shared;
  int consumer;
  float scale;  // p = exp2(scale s - lse), with Softcap exp2(shared.cap tanh(scale s) - lse)

  // Computed where they are used, without signs: registers are short. In the accumulators a thread has rows row() and row() +
  // 8, columns 8 j + 2 quad() and the next.
  __device__ static int lane() { return static_cast<int>(threadIdx.x & 31u); }
  __device__ static int quad() { return static_cast<int>(threadIdx.x & 3u); }
  __device__ static int octet() { return static_cast<int>(threadIdx.x >> 2 & 7u); }
  __device__ static int row() { return static_cast<int>((threadIdx.x >> 1 & 48u) | (threadIdx.x >> 2 & 7u)); }

  // S^T or dP^T of a query tile.
  __device__ void multiply(float (&sum)[scores], const unsigned char* keys, const unsigned char* rows) const {
    const std::uint64_t a = Keys::k_major(keys, 64 * consumer, 0), b = Rows::k_major(rows, 0, 0);
#pragma unroll
    for (int k = 0; k < Dim / 16; ++k)
      mma_ss<Element, Queries>(sum, beyond(a, k / 4 * Keys::panel_bytes + k % 4 * 32),
                               beyond(b, k / 4 * Rows::panel_bytes + k % 4 * 32), k > 0);
  }

  // dV += P^T dO, dK += dS^T Q.
  __device__ void accumulate(float (&sum)[Dim / 2], const std::uint32_t (&weights)[k_steps][4],
                             const unsigned char* rows) const {
    const std::uint64_t b = Rows::mn_major(rows, 0, 0);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) mma_rs<Element, Dim, true>(sum, weights[k], beyond(b, k * 16 * 128), true);
  }

  // This consumer's half of dQ = dS K.
  __device__ void multiply_dq(float (&sum)[32], const unsigned char* ds) const {
    const std::uint64_t a = Scores::mn_major(ds, 0, Queries == 128 ? 64 * consumer : 0);
    const std::uint64_t b = Keys::mn_major(shared.k, 0, Dim == 128 ? 64 * consumer : 0);
#pragma unroll
    for (int k = 0; k < tile_rows / 16; ++k)
      mma_ss<Element, 64, true, true>(sum, beyond(a, k * 16 * 128), beyond(b, k * 16 * 128), k > 0);
  }

  // P and dS of a tile from its S and dP, packed; dS also to shared memory. In one pass: as the registers of s and dp fall
  // free, those of p and ds are taken.
  template <bool Masked>
  __device__ void weigh(const float (&s)[scores], const float (&dp)[scores], std::uint32_t (&p)[k_steps][4],
                        std::uint32_t (&ds)[k_steps][4], unsigned turn) const {
    const unsigned stage = turn % stages;
    const Step& step = shared.steps[stage];
    const int t = quad(), key = 64 * consumer + row();
    const Seen seen[2] = {rows_seen(step, key, 2 * t), rows_seen(step, key + 8, 2 * t)};
    const int place = key * 128 + (octet() << 4) + 4 * t;  // of chunk 0; the others differ in bits 4 to 6
#pragma unroll
    for (int a = 0; a < k_steps; ++a) {
      const Four lse = *reinterpret_cast<const Four*>(shared.lse[stage] + 16 * a + 4 * t);
      const Four delta = *reinterpret_cast<const Four*>(shared.delta[stage] + 16 * a + 4 * t);
#pragma unroll
      for (int u = 0; u < 2; ++u)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float weight[2], difference[2];
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int i = 8 * a + 4 * u + 2 * h + e;
            const bool visible = !Masked || seen[h].holds(16 * a + 8 * u + e);
            float slope = 1;
            if constexpr (Softcap) {
              // tanh y = 1 - 2 / (1 + e^2y), scale s = 2 log2(e) y; tanh.approx would be off by up to softcap / 2048 in lse
              const float tanh = 1 - 2 * exp2_fast(-log2_fast(1 + exp2_fast(s[i] * scale)));
              weight[e] = exp2_fast(shared.cap * tanh - lse.at[2 * u + e]);
              slope = 1 - tanh * tanh;
            } else {
              weight[e] = exp2_fast(s[i] * scale - lse.at[2 * u + e]);
            }
            difference[e] = weight[e] * (dp[i] - delta.at[2 * u + e]);
            if constexpr (Softcap) difference[e] *= slope;
            if (!visible) weight[e] = 0, difference[e] = 0;  // selected: either may be NaN
          }
          p[a][2 * u + h] = pack<Element>(weight[0], weight[1]);
          ds[a][2 * u + h] = pack<Element>(difference[0], difference[1]);
          *reinterpret_cast<std::uint32_t*>(shared.ds[turn % 2] + (place ^ ((2 * a + u) % 8 << 4)) +
                                            a / 4 * Scores::panel_bytes + h * 8 * 128) = ds[a][2 * u + h];
        }
    }
  }

  // dQ of a tile to shared memory, and word to the warp that carries it away.
  __device__ void hand_over(float (&dq)[32], const Target& target) const {
    const int first = row() + (Queries == 128 ? 64 * consumer : 0), t = quad();
    if (target.rows.begin > 0 || target.rows.end < Queries) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = first + i / 2 % 2 * 8;
        dq[i] = target.rows.begin <= r && r < target.rows.end ? dq[i] : 0.0f;
      }
    }
    named_sync(sums_empty + consumer, 160);
    const int swap = ((target.row0 + row()) & 1) << 6;  // of the halves of 32 columns, see dq_sums.cuh
    const int place = row() * 128 + (((t / 2) ^ octet()) << 4 ^ swap) + t % 2 * 8;  // of column 2 t
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h)
        *reinterpret_cast<Two*>(shared.dq[consumer] + (place ^ (j % 4 << 5)) + j / 4 * Shared::Sums::panel_bytes +
                                h * 8 * 128) = Two{dq[4 * j + 2 * h], dq[4 * j + 2 * h + 1]};
    if (static_cast<int>(threadIdx.x) % warpgroup_threads == 0) shared.target[consumer] = target;
    fence_async_proxy();
    named_arrive(sums_full + consumer, 160);
  }

  // Once for all lanes, when the last of them is through with what is released.
  __device__ void release(Barrier& barrier) const {
    __syncwarp();
    if (lane() == 0) arrive(barrier);
  }

  // Flags of the turn's record; Q of its tile is there, and zero where it is another document's.
  __device__ int await_step(unsigned turn) const {
    const unsigned stage = turn % stages;
    wait(shared.q_full[stage], turn / stages % 2);
    const Step& step = shared.steps[stage];
    const int flags = shuffle(step.flags, 0);  // now known to be uniform: ptxas lets no product run across any other branch
    if (flags & step_cut_rows) zero_rows_outside<Rows>(shared.q[stage], step.rows);
    return flags;
  }

  // One tile. No product is left running at the end: ptxas serialises those that cross the back edge of a loop.
  __device__ void advance(int flags, unsigned turn, float (&dk)[Dim / 2], float (&dv)[Dim / 2]) const {
    const unsigned stage = turn % stages;
    const Step& step = shared.steps[stage];
    float s[scores], dp[scores], dq[32];
    std::uint32_t p[k_steps][4], ds[k_steps][4];
    mma_fence();
    multiply(s, shared.k, shared.q[stage]);
    mma_commit();
    wait(shared.dout_full[stage], turn / stages % 2);
    if (flags & step_cut_rows) zero_rows_outside<Rows>(shared.dout[stage], step.rows);
    if (shuffle(shared.unfit[stage], 0) != 0) {  // their p and ds are NaN where they are seen, and 0 elsewhere
      mma_wait<0>();  // nobody's scores still read Q
      named_sync(both_consumers, consumers * warpgroup_threads);
      const auto fit = [&](int row) { return !std::isnan(shared.lse[stage][statistic_place(row)]); };
      zero_rows<Rows>(shared.q[stage], fit), zero_rows<Rows>(shared.dout[stage], fit);
    }
    mma_fence();
    multiply(dp, shared.v, shared.dout[stage]);
    mma_commit();
    mma_wait<0>();
    hold(s), hold(dp);
    if (flags & step_masked) {
      weigh<true>(s, dp, p, ds, turn);
    } else {
      weigh<false>(s, dp, p, ds, turn);
    }
    fence_async_proxy();
    mma_fence();
    accumulate(dv, p, shared.dout[stage]);
    mma_commit();
    named_sync(both_consumers, consumers * warpgroup_threads);
    mma_fence();
    multiply_dq(dq, shared.ds[turn % 2]);
    mma_commit();
    accumulate(dk, ds, shared.q[stage]);
    mma_commit();
    mma_wait<1>();
    hold(dq), hold(dv);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) hold(p[k]);
    release(shared.dout_empty[stage]);
    hand_over(dq, {step.row0, step.head, step.rows});
    mma_wait<0>();
    hold(dk);
#pragma unroll
    for (int k = 0; k < k_steps; ++k) hold(ds[k]);
    release(shared.q_empty[stage]);
  }

  __device__ void run() const {
    float dk[Dim / 2] = {}, dv[Dim / 2] = {};
    unsigned turn = 0, runs = 0, v_loads = 0, v_releases = 0;
    for (;; ++turn) {
      int flags = await_step(turn);
      if (flags & step_stops) break;
      if (flags & step_finishes) {
        const unsigned stage = turn % stages;
        wait(shared.dout_full[stage], turn / stages % 2);
        if (v_releases != v_loads) release(shared.v_empty), ++v_releases;  // an item without tiles has no V
        // dS of the turn before this one may still be read by the other consumer; that of this turn there is none.
        const int warp = static_cast<int>(threadIdx.x) / 32 - warpgroup_threads / 32;
        write_gradients<Element, Dim>(params, shared.steps[stage], 16 * warp, dk, dv,
                                      shared.ds[turn % 2] + warp * staging_bytes);
        release(shared.q_empty[stage]), release(shared.dout_empty[stage]);
#pragma unroll
        for (int i = 0; i < Dim / 2; ++i) dk[i] = 0, dv[i] = 0;
        continue;
      }
      wait(shared.k_full, runs++ % 2);
      if (flags & step_cut_keys) zero_rows_outside<Keys>(shared.k, shared.steps[turn % stages].keys);
      if (flags & step_loads_v) wait(shared.v_full, v_loads++ % 2);
      for (;;) {
        advance(flags, turn, dk, dv);
        if (flags & step_ends_run) break;
        flags = await_step(++turn);
      }
      release(shared.k_empty);
    }
    named_sync(sums_empty + consumer, 160);
    if (static_cast<int>(threadIdx.x) % warpgroup_threads == 0) shared.target[consumer].row0 = -1;
    named_arrive(sums_full + consumer, 160);
  }
};

}  // namespace hetsp::attention::cuda::hopper
