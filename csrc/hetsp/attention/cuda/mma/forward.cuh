// The recurrence of scalar/forward.cuh on tensor cores (FlashAttention-2, arXiv 2307.08691): a block takes a tile of query rows
// of one head, a warp 16 M rows of it; scores, weights and the output stay in its registers.
//
// Maxima are kept in base 2: weights are 2^(c q.k - mu) with c = softmax_scale log2 e, one multiply-add and one exponential.
// Sums of weights are taken before these are rounded, for lse to keep its digits. A row's bits do not depend on what shares its
// tile: key tiles are counted from the segment's first key, and what it does not see adds exactly 0.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/band.cuh"
#include "hetsp/attention/cuda/mma/exponent.cuh"
#include "hetsp/attention/cuda/mma/fragments.cuh"
#include "hetsp/attention/cuda/mma/item.cuh"

namespace hetsp::attention::cuda::mma {

// 128 rows always: a tile of the list. Keys come `keys` at a time, two stages; scores are made `columns` of them at a time.
// Blocks: how many an SM is to hold, for the registers.
template <int Warps, int M, int Keys, int Columns, int Blocks>
struct ForwardSides {
  static constexpr int warps = Warps, m = M, keys = Keys, columns = Columns, blocks = Blocks;
};

// Times on an H200, causal, 16384 tokens, 32 heads of 64, 16 of 128 or 8 of 256. 64: 4.0 ms; with 64 keys 4.4. 128: 3.8 ms;
// with 32 keys 4.2; with 8 warps of one block of rows 4.5. 256: 7.2 ms, and 5.1 with 32 keys, which need 129 KB.
template <int Dim>
struct ForwardPlan;
template <>
struct ForwardPlan<64> : ForwardSides<4, 2, 128, 64, 2> {};
template <>
struct ForwardPlan<128> : ForwardSides<4, 2, 64, 32, 2> {};
template <>
struct ForwardPlan<256> : ForwardSides<8, 1, 16, 16, 1> {};
struct WideForwardPlan : ForwardSides<8, 1, 32, 32, 1> {};  // of 256, where the device has the shared memory

template <int Dim, class Plan = ForwardPlan<Dim>>
struct ForwardShared {
  SharedTile<Plan::warps * Plan::m * 16, Dim> q;
  SharedTile<Plan::keys, Dim> k[2], v[2];
  Walk<false, Plan::keys> walk;
  Step step[3];
  ItemShared item;
};

template <class Element, int Dim, class Plan = ForwardPlan<Dim>>
struct ForwardWarp {
  static constexpr int M = Plan::m, columns = Plan::columns, blocks = columns / 8, rows = 16 * M;

  const ForwardParams& params;
  const ItemShared& item;
  int warp_row;  // its first row within the tile
  float mu[M][2], l[M][2], o[M][Dim / 8][4];  // l: the lane's own part of the sum

  __device__ int row(int m, int half) const { return warp_row + 16 * m + row_in_block(half); }
  __device__ bool inside(int m, int half) const { return row(m, half) < item.tile.rows; }
  __device__ std::int64_t statistic(int m, int half) const {
    return item.head * params.shape.total_q + item.tile.row0 + row(m, half);
  }

  __device__ void seed() {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const bool seeded = params.seed_lse != nullptr && inside(m, h);
        const float lse = seeded ? static_cast<const float*>(params.seed_lse)[statistic(m, h)] : -INFINITY;
        const bool filled = lse != -INFINITY;
        mu[m][h] = lse * static_cast<float>(kLog2E);
        l[m][h] = filled && warp_lane() % 4 == 0 ? 1.0f : 0.0f;
        const auto* from = static_cast<const float*>(params.seed_out.data);
        const std::int64_t offset =
            (item.tile.row0 + row(m, h)) * params.seed_out.token_stride + item.head * params.seed_out.head_stride;
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int column = 8 * n + column_in_block() + e;
            o[m][n][2 * h + e] = filled && column < params.shape.head_dim_v ? from[offset + column] : 0.0f;
          }
      }
  }

  // Where the plain product is not what goes into the exponent: softcap, or a scale that is not positive.
  __device__ static void transform(float (&s)[M][blocks][4], const Exponent& exponent) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < blocks; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) s[m][n][i] = exponent(s[m][n][i]);
  }

  __device__ void hide(float (&s)[M][blocks][4], const Step& step) const {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const Run run = step.run(row(m, h));
#pragma unroll
        for (int n = 0; n < blocks; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (!run.holds(8 * n + column_in_block() + e)) s[m][n][2 * h + e] = -INFINITY;
      }
  }

  // Scores become weights; the state moves on to their maximum. Where no maximum of the warp has grown, as is the rule after
  // the first keys, the sums are as they should be: their factor would be 1.
  __device__ void weigh(float (&s)[M][blocks][4], float factor) {
    float next[M][2];
    bool grown = false;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float top = s[m][0][2 * h];
#pragma unroll
        for (int n = 0; n < blocks; ++n) top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
        top = fmaxf(top, shuffle_xor(top, 1));
        top = fmaxf(top, shuffle_xor(top, 2));
        next[m][h] = fmaxf(mu[m][h], top * factor);
        grown = grown || next[m][h] > mu[m][h];
      }
    if (any(grown)) rescale(next);
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float origin = mu[m][h] == -INFINITY ? 0.0f : mu[m][h];
#pragma unroll
        for (int n = 0; n < blocks; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& x = s[m][n][2 * h + e];
            x = exp2_fast(x * factor - origin);
            l[m][h] += x;
          }
      }
  }

  __device__ void rescale(const float (&next)[M][2]) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float shrink = exp2_fast(mu[m][h] - (next[m][h] == -INFINITY ? 0.0f : next[m][h]));
        mu[m][h] = next[m][h];
        l[m][h] *= shrink;
#pragma unroll
        for (int n = 0; n < Dim / 8; ++n) o[m][n][2 * h] *= shrink, o[m][n][2 * h + 1] *= shrink;
      }
  }

  // One stage of keys, `dim` and `dim_v` columns.
  __device__ void attend(const ForwardShared<Dim, Plan>& shared, int stage, const Step& whole, const Exponent& exponent,
                         int dim, int dim_v) {
#pragma unroll 1
    for (int first = 0; first < Plan::keys; first += columns) {
      const Step step = whole.from(first, columns);
      if (step.none(warp_row, rows)) continue;
      float s[M][blocks][4];
      products<Element>(s, shared.q, warp_row, shared.k[stage], first, dim);
      if (!exponent.plain()) transform(s, exponent);
      if (!step.all(warp_row, rows, columns)) hide(s, step);
      weigh(s, exponent.plain() ? exponent.factor : 1.0f);
      add_weighted<Element>(o, s, shared.v[stage], first, dim_v);
    }
  }

  // Joins (0, sink), normalises and writes. Returns the trace of write_row.
  __device__ float finish() {
    const Sink out = sink_of(params.out, params.shape.head_dim_v, params.out_is_acc);
    const float sink =
        params.sink != nullptr ? static_cast<const float*>(params.sink)[item.head] * static_cast<float>(kLog2E) : -INFINITY;
    float trace = 0;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float total = l[m][h];
        total += shuffle_xor(total, 1);
        total += shuffle_xor(total, 2);
        const float top = sink > mu[m][h] ? sink : mu[m][h], origin = top == -INFINITY ? 0.0f : top;
        const float shrink = exp2_fast(mu[m][h] - origin);
        total = total * shrink + exp2_fast(sink - origin);
        const bool empty = total == 0;  // no key, no seed, no sink
        if (!inside(m, h)) continue;
        trace += write_row<Element>(o[m], h, shrink / total, empty, out, item.head, item.tile.row0 + row(m, h));
        if (warp_lane() % 4 == 0)
          static_cast<float*>(params.lse)[statistic(m, h)] = empty ? -INFINITY : top * static_cast<float>(kLn2) + logf(total);
      }
    return trace;
  }
};

template <class Element, int Dim, class Plan = ForwardPlan<Dim>>
__device__ void forward_items(const ForwardParams& params, const TileList& queries, const Scratch& scratch,
                              ForwardShared<Dim, Plan>& shared) {
  using Warp = ForwardWarp<Element, Dim, Plan>;
  constexpr int threads = Plan::warps * warp_lanes;
  const Shape& shape = params.shape;
  const auto heads = static_cast<std::int32_t>(shape.heads), share = static_cast<std::int32_t>(shape.heads / shape.heads_kv);
  const int dim = static_cast<int>(shape.head_dim), dim_v = static_cast<int>(shape.head_dim_v);
  const Source q = source_of(params.q, dim, false), k = source_of(params.k, dim, false), v = source_of(params.v, dim_v, false);
  const Exponent exponent(params.score);
  for (;;) {
    if (!next_item(scratch, queries, heads, shared.item)) return;
    const Tile& tile = shared.item.tile;
    const std::int32_t head = shared.item.head;
    if (threadIdx.x == 0) {
      shared.walk.begin(tile, 0, tile.rows, head, 1);
      shared.walk.advance(params.segments, shape, shared.step[0]);
      shared.walk.advance(params.segments, shape, shared.step[1]);
    }
    stage<Element, threads>(shared.q, q, head, tile.row0, 0, tile.rows);
    Warp warp{params, shared.item, warp_of_block() * Warp::rows, {}, {}, {}};
    warp.seed();
    __syncthreads();
    stream(
        shared.walk, shared.step, params.segments, shape,
        [&](int buffer, const Step& step) {
          const std::int32_t head_kv = shared.item.head / share;
          stage<Element, threads>(shared.k[buffer], k, head_kv, step.other0, step.skip, step.count);
          stage<Element, threads>(shared.v[buffer], v, head_kv, step.other0, step.skip, step.count);
        },
        [&](int buffer, const Step& step) { warp.attend(shared, buffer, step, exponent, dim, dim_v); });
    suspect(warp.finish(), shared.item);
    note_suspect(scratch, shared.item);
  }
}

}  // namespace hetsp::attention::cuda::mma
