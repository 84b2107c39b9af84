// Gradients by recomputation (FlashAttention-2, arXiv 2307.08691) on tensor cores, formulas in params.h. A block keeps the rows
// that it owns, streams the others by, and never shares a sum:
//
//   dq       owns Q, dO;  others K, V:   S = Q K^T,  dP = dO V^T,  dQ += dS K
//   dk, dv   owns K, V;   others Q, dO:  S = K Q^T,  dP = V dO^T,  dV += P dO,  dK += dS Q;  all heads of the group
//
// It is one kernel with its sides exchanged (band.cuh); P and dS are made in the registers in which the next product wants
// them. Why dq has a pass of its own, at two products of seven: sums of dq in memory would be added by many blocks, in the
// order in which these happen to come, or in turn, with waiting; this is bitwise repeatable and needs no float32 copy of dq.
// Beyond 128 columns dk and dv do not fit the registers together and take a pass each.
//
// float16 has too few exponents for the weights of a long row: they are made 2^8 times larger. dS is as it is; where it
// overflows, the item is suspect and repaired in float32 (scratch.h).
#pragma once

#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda/mma/band.cuh"
#include "hetsp/attention/cuda/mma/exponent.cuh"
#include "hetsp/attention/cuda/mma/fragments.cuh"
#include "hetsp/attention/cuda/mma/item.cuh"

namespace hetsp::attention::cuda::mma {

enum class Gradient { dq, dk, dv, dk_dv };

// Own rows: 16 m warps. Others come `others` rows at a time, two stages; scores are made `columns` of them at a time. Blocks:
// how many an SM is to hold, for the registers.
template <int Warps, int M, int Others, int Columns, int Blocks>
struct Sides {
  static constexpr int warps = Warps, m = M, others = Others, columns = Columns, blocks = Blocks;
};

// Two blocks of rows a warp halve what it reads of the others, where the sums leave the registers for it. Times on an H200,
// causal, 16384 tokens, 16 heads of 128 or 32 of 64: dq of 128 5.9 ms where 1 block, 8 warps take 8.2; dk and dv of 128
// together 9.3, apart, two blocks each, 10.9; dq of 64 6.9 with 16 columns and 3 blocks, 7.4 with 32 and 2.
template <int Dim, Gradient G>
struct BackwardPlan : Sides<4, 1, 16, 16, 2> {};
template <Gradient G>
struct BackwardPlan<64, G> : Sides<4, 2, 64, 16, 2> {};
template <>
struct BackwardPlan<64, Gradient::dq> : Sides<4, 2, 64, 16, 3> {};
template <Gradient G>
struct BackwardPlan<128, G> : Sides<8, 1, 32, 32, 1> {};
template <>
struct BackwardPlan<128, Gradient::dq> : Sides<4, 2, 32, 32, 2> {};

template <int Dim, Gradient G, class Plan = BackwardPlan<Dim, G>>
struct BackwardShared {
  static constexpr int rows = Plan::warps * Plan::m * 16;
  SharedTile<rows, Dim> own_qk, own_vo;  // dq: Q, dO     else: K, V
  SharedTile<Plan::others, Dim> other_qk[2], other_vo[2];  // dq: K, V      else: Q, dO
  // Of query rows: dq's own, which in registers would cost it sums, or the others', which come with each stage.
  float own_lse[G == Gradient::dq ? rows : 1], own_delta[G == Gradient::dq ? rows : 1];
  float lse[2][Plan::others], delta[2][Plan::others];
  Walk<G != Gradient::dq, Plan::others> walk;
  Step step[3];
  ItemShared item;
};

// The statistics of a row as gradient() wants them. A row without keys has p = 0 = 2^-inf.
template <class Element>
struct RowStatistics {
  static constexpr float shift = std::is_same_v<Element, Float16> ? 8.0f : 0.0f;  // p is 2^shift times itself
  static constexpr float unshift = std::is_same_v<Element, Float16> ? 1.0f / 256 : 1.0f;
  float lse2, delta;
  __device__ static RowStatistics of(float lse, float delta) {
    return {lse == -INFINITY ? INFINITY : lse * static_cast<float>(kLog2E) - shift, delta * unshift};
  }
};

// s = q . k becomes p, dp = dout . v becomes ds, of one pair that is visible.
template <bool Capped, class Element>
__device__ inline void gradient(const Exponent& exponent, const RowStatistics<Element>& row, float& s, float& dp) {
  if constexpr (Capped) {
    const float t = exponent.squashed(s);
    s = exp2_fast(t * (exponent.cap * static_cast<float>(kLog2E)) - row.lse2);
    dp = s * (dp * RowStatistics<Element>::unshift - row.delta) * (1 - t * t);
  } else {
    s = exp2_fast(s * exponent.factor - row.lse2);
    dp = s * (dp * RowStatistics<Element>::unshift - row.delta);
  }
}

template <class Element, int Dim, Gradient G, class Plan = BackwardPlan<Dim, G>>
struct BackwardWarp {
  static constexpr int M = Plan::m, rows = 16 * M, columns = Plan::columns, blocks = columns / 8;
  static constexpr bool own_keys = G != Gradient::dq, wants_qk = G != Gradient::dv,
                        wants_v = G == Gradient::dv || G == Gradient::dk_dv;
  using Shared = BackwardShared<Dim, G, Plan>;

  int warp_row;  // its first row within the block's
  float qk[wants_qk ? M : 1][wants_qk ? Dim / 8 : 1][4];  // dq or dk
  float v[wants_v ? M : 1][wants_v ? Dim / 8 : 1][4];  // dv

  __device__ int row(int m, int half) const { return warp_row + 16 * m + row_in_block(half); }

  // Products become weights and score gradients. The statistics of dq go by rows, those of dk and dv by columns: each is read
  // once.
  template <bool Capped>
  __device__ void differentiate(float (&s)[M][blocks][4], float (&dp)[M][blocks][4], const Exponent& exponent, const float* lse,
                                const float* delta) const {
#pragma unroll
    for (int outer = 0; outer < (own_keys ? blocks : 2 * M); ++outer) {
      RowStatistics<Element> statistics[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int at = own_keys ? 8 * outer + column_in_block() + e : row(outer / 2, outer % 2);
        statistics[e] = RowStatistics<Element>::of(lse[at], delta[at]);
      }
#pragma unroll
      for (int inner = 0; inner < (own_keys ? 2 * M : blocks); ++inner) {
        const int n = own_keys ? outer : inner, m = (own_keys ? inner : outer) / 2, h = (own_keys ? inner : outer) % 2;
#pragma unroll
        for (int e = 0; e < 2; ++e) gradient<Capped>(exponent, statistics[e], s[m][n][2 * h + e], dp[m][n][2 * h + e]);
      }
    }
  }

  // Those of hidden pairs become 0, by selection.
  __device__ void hide(float (&s)[M][blocks][4], float (&dp)[M][blocks][4], const Step& step) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Run run = step.run(row(m, h));
#pragma unroll
        for (int n = 0; n < blocks; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (!run.holds(8 * n + column_in_block() + e)) s[m][n][2 * h + e] = dp[m][n][2 * h + e] = 0;
      }
  }

  // One stage of other rows, `dim` and `dim_v` columns.
  __device__ void attend(const Shared& shared, int stage, const Step& whole, const Exponent& exponent, int dim, int dim_v) {
#pragma unroll 1
    for (int first = 0; first < Plan::others; first += columns) {
      const Step step = whole.from(first, columns);
      if (step.none(warp_row, rows)) continue;
      float s[M][blocks][4], dp[M][blocks][4];
      products<Element>(s, shared.own_qk, warp_row, shared.other_qk[stage], first, dim);
      if constexpr (wants_qk) {
        products<Element>(dp, shared.own_vo, warp_row, shared.other_vo[stage], first, dim_v);
      } else {
        clear(dp);
      }
      const float *const lse = own_keys ? shared.lse[stage] + first : shared.own_lse, *const delta =
                                                                                          own_keys ? shared.delta[stage] + first
                                                                                                   : shared.own_delta;
      if (exponent.cap > 0) {
        differentiate<true>(s, dp, exponent, lse, delta);
      } else {
        differentiate<false>(s, dp, exponent, lse, delta);
      }
      if (!step.all(warp_row, rows, columns)) hide(s, dp, step);
      if constexpr (wants_v) add_weighted<Element>(v, s, shared.other_vo[stage], first, dim_v);
      if constexpr (wants_qk) add_weighted<Element>(qk, dp, shared.other_qk[stage], first, dim);
    }
  }

  // Writes the sums; returns the trace of write_row.
  __device__ float finish(const BackwardParams& params, std::int64_t head, std::int64_t row0, int count) const {
    float trace = 0;
    const auto write = [&](const auto& sum, const View& view, std::int64_t dim, float factor) {
      const Sink sink = sink_of(view, dim, params.grads_are_acc);
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
          if (row(m, h) < count) trace += write_row<Element>(sum[m], h, factor, false, sink, head, row0 + row(m, h));
    };
    if constexpr (wants_qk)
      write(qk, own_keys ? params.dk : params.dq, params.shape.head_dim, static_cast<float>(params.score.softmax_scale));
    if constexpr (wants_v) write(v, params.dv, params.shape.head_dim_v, RowStatistics<Element>::unshift);
    return trace;
  }
};

template <class Element, int Dim, Gradient G, class Plan = BackwardPlan<Dim, G>>
__device__ void backward_items(const BackwardParams& params, const TileList& own, const Scratch& scratch,
                               BackwardShared<Dim, G, Plan>& shared) {
  using Warp = BackwardWarp<Element, Dim, G, Plan>;
  constexpr int threads = Plan::warps * warp_lanes, side = BackwardShared<Dim, G, Plan>::rows;
  constexpr bool own_keys = Warp::own_keys;
  const Shape& shape = params.shape;
  const auto share = static_cast<std::int32_t>(shape.heads / shape.heads_kv);
  const auto heads = static_cast<std::int32_t>(own_keys ? shape.heads_kv : shape.heads);
  const int dim = static_cast<int>(shape.head_dim), dim_v = static_cast<int>(shape.head_dim_v),
            thread = static_cast<int>(threadIdx.x);
  const Source q = source_of(params.q, dim, false), k = source_of(params.k, dim, false), v = source_of(params.v, dim_v, false),
               dout = source_of(params.dout, dim_v, params.out_is_acc);
  const Exponent exponent(params.score);

  const auto load = [&](int buffer, const Step& step) {
    const std::int32_t head = own_keys ? step.head : step.head / share;
    stage<Element, threads>(shared.other_qk[buffer], own_keys ? q : k, head, step.other0, step.skip, step.count);
    stage<Element, threads>(shared.other_vo[buffer], own_keys ? dout : v, head, step.other0, step.skip, step.count);
    if (own_keys && thread < Plan::others) {
      const bool there = thread >= step.skip && thread < step.count;
      const std::int64_t statistic = there ? step.head * shape.total_q + step.other0 + thread : 0;
      copy_4(shared_address(&shared.lse[buffer][thread]), static_cast<const float*>(params.lse) + statistic, there ? 4 : 0);
      copy_4(shared_address(&shared.delta[buffer][thread]), static_cast<const float*>(params.delta) + statistic, there ? 4 : 0);
    }
  };

  for (;;) {
    if (!next_item(scratch, own, heads, shared.item)) return;
    const Tile& tile = shared.item.tile;
    const std::int32_t& head = shared.item.head;
    for (int from = 0; from < (side == tile_rows ? 1 : tile.rows); from += side) {
      const auto row0 = [&] { return tile.row0 + from; };
      const auto rows = [&] { return smaller(tile.rows - from, side); };
      __syncthreads();  // the last part still reads shared memory
      if (thread == 0) {
        shared.walk.begin(tile, from, rows(), own_keys ? head * share : head, own_keys ? share : 1);
        shared.walk.advance(params.segments, shape, shared.step[0]);
        shared.walk.advance(params.segments, shape, shared.step[1]);
      }
      stage<Element, threads>(shared.own_qk, own_keys ? k : q, head, row0(), 0, rows());
      if (Warp::wants_qk) stage<Element, threads>(shared.own_vo, own_keys ? v : dout, head, row0(), 0, rows());
      Warp warp;
      warp.warp_row = warp_of_block() * Warp::rows;
      clear(warp.qk);
      clear(warp.v);
      if (!own_keys && thread < side) {  // rows beyond the tile see nothing
        const std::int64_t statistic = head * shape.total_q + row0() + thread;
        shared.own_lse[thread] = thread < rows() ? static_cast<const float*>(params.lse)[statistic] : -INFINITY;
        shared.own_delta[thread] = thread < rows() ? static_cast<const float*>(params.delta)[statistic] : 0.0f;
      }
      __syncthreads();
      stream(shared.walk, shared.step, params.segments, shape, load,
             [&](int buffer, const Step& step) { warp.attend(shared, buffer, step, exponent, dim, dim_v); });
      suspect(warp.finish(params, head, row0(), rows()), shared.item);
    }
    note_suspect(scratch, shared.item);
  }
}

}  // namespace hetsp::attention::cuda::mma
