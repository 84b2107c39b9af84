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

// Per bucket. Own rows: 16 m warps. Others come `others` rows at a time, two stages; scores are made `columns` of them at a
// time.
template <int Dim>
struct BackwardPlan;
template <>
struct BackwardPlan<64> {
  static constexpr int warps = 4, m = 2, others = 64, columns = 16, blocks = 2;
};
template <>
struct BackwardPlan<128> {
  static constexpr int warps = 8, m = 1, others = 32, columns = 16, blocks = 1;
};
template <>
struct BackwardPlan<256> {
  static constexpr int warps = 4, m = 1, others = 16, columns = 16, blocks = 2;
};

template <int Dim, Gradient G, class Plan = BackwardPlan<Dim>>
struct BackwardShared {
  static constexpr int rows = Plan::warps * Plan::m * 16;
  SharedTile<rows, Dim> own_qk, own_vo;  // dq: Q, dO     else: K, V
  SharedTile<Plan::others, Dim> other_qk[2], other_vo[2];  // dq: K, V      else: Q, dO
  float lse[2][Plan::others], delta[2][Plan::others];  // of the other rows; dq has its own in registers
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
template <class Element>
__device__ inline void gradient(const Exponent& exponent, const RowStatistics<Element>& row, float& s, float& dp) {
  float slope = 1;
  if (exponent.cap > 0) {
    const float t = exponent.squashed(s);
    slope = 1 - t * t;
    s = exp2_fast(t * (exponent.cap * static_cast<float>(kLog2E)) - row.lse2);
  } else {
    s = exp2_fast(s * exponent.factor - row.lse2);
  }
  dp = s * (dp * RowStatistics<Element>::unshift - row.delta) * slope;
}

template <class Element, int Dim, Gradient G, class Plan = BackwardPlan<Dim>>
struct BackwardWarp {
  static constexpr int M = Plan::m, rows = 16 * M, columns = Plan::columns, blocks = columns / 8;
  static constexpr bool own_keys = G != Gradient::dq, wants_qk = G != Gradient::dv,
                        wants_v = G == Gradient::dv || G == Gradient::dk_dv;
  using Shared = BackwardShared<Dim, G, Plan>;

  int warp_row;  // its first row within the block's
  float qk[wants_qk ? M : 1][wants_qk ? Dim / 8 : 1][4];  // dq or dk
  float v[wants_v ? M : 1][wants_v ? Dim / 8 : 1][4];  // dv
  RowStatistics<Element> own[own_keys ? 1 : M][2];

  __device__ int row(int m, int half) const { return warp_row + 16 * m + row_in_block(half); }

  __device__ void begin(const BackwardParams& params, std::int64_t head, std::int64_t row0, int count) {
    clear(qk);
    clear(v);
    if constexpr (!own_keys) {
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const std::int64_t statistic = head * params.shape.total_q + row0 + row(m, h);
          const bool inside = row(m, h) < count;
          own[m][h] = RowStatistics<Element>::of(inside ? static_cast<const float*>(params.lse)[statistic] : -INFINITY,
                                                 inside ? static_cast<const float*>(params.delta)[statistic] : 0.0f);
        }
    }
  }

  // Products become weights and score gradients; those of hidden pairs 0, by selection.
  __device__ void differentiate(float (&s)[M][blocks][4], float (&dp)[M][blocks][4], const Step& step, const Exponent& exponent,
                                const float* lse, const float* delta) const {
    const bool masked = !step.all(warp_row, rows, columns);
#pragma unroll
    for (int n = 0; n < blocks; ++n) {
      const int column = 8 * n + column_in_block();
      RowStatistics<Element> other[2];
      if constexpr (own_keys) {
#pragma unroll
        for (int e = 0; e < 2; ++e) other[e] = RowStatistics<Element>::of(lse[column + e], delta[column + e]);
      }
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float &p = s[m][n][2 * h + e], &ds = dp[m][n][2 * h + e];
            if constexpr (own_keys) {
              gradient(exponent, other[e], p, ds);
            } else {
              gradient(exponent, own[m][h], p, ds);
            }
          }
    }
    if (!masked) return;
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
      differentiate(s, dp, step, exponent, shared.lse[stage] + first, shared.delta[stage] + first);
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

template <class Element, int Dim, Gradient G, class Plan = BackwardPlan<Dim>>
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
    const std::int32_t item = next_item(scratch, own, heads, shared.item);
    if (item < 0) return;
    const Tile tile = own.tiles[item / heads];
    const std::int32_t head = item % heads;
    float trace = 0;
    for (int from = 0; from < tile.rows; from += side) {
      const std::int64_t row0 = tile.row0 + from;
      const int rows = smaller(tile.rows - from, side);
      __syncthreads();  // the last part still reads shared memory
      if (thread == 0) {
        shared.walk.begin(tile, from, rows, own_keys ? head * share : head, own_keys ? share : 1);
        shared.walk.advance(params.segments, shape, shared.step[0]);
        shared.walk.advance(params.segments, shape, shared.step[1]);
      }
      stage<Element, threads>(shared.own_qk, own_keys ? k : q, head, row0, 0, rows);
      if (Warp::wants_qk) stage<Element, threads>(shared.own_vo, own_keys ? v : dout, head, row0, 0, rows);
      Warp warp;
      warp.warp_row = warp_of_block() * Warp::rows;
      warp.begin(params, head, row0, rows);
      __syncthreads();
      stream(shared.walk, shared.step, params.segments, shape, load,
             [&](int buffer, const Step& step) { warp.attend(shared, buffer, step, exponent, dim, dim_v); });
      trace += warp.finish(params, head, row0, rows);
    }
    note_suspect(scratch, trace, shared.item);
  }
}

}  // namespace hetsp::attention::cuda::mma
