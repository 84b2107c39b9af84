// What a warp holds in registers, 16 rows by 8 columns a block (warp_mma.cuh), and its three moves: the product of rows with
// rows, the sum of weighted rows, the way to a tensor.
//
// A warp owns M blocks of 16 rows; each operand that it loads of the other tile serves all of them.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/shared_tile.cuh"
#include "hetsp/attention/cuda/mma/warp_mma.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda::mma {

constexpr int warp_lanes = 32;
__device__ inline int warp_lane() { return static_cast<int>(threadIdx.x) % warp_lanes; }
__device__ inline int warp_of_block() { return uniform(static_cast<int>(threadIdx.x) / warp_lanes); }
__device__ inline int row_in_block(int half) { return warp_lane() / 4 + 8 * half; }  // of d[2 half + e]
__device__ inline int column_in_block() { return warp_lane() % 4 * 2; }              // of e = 0

// Where a head is narrower than its bucket, columns from `column` on need not be multiplied. Asked for where much is to be
// saved: a branch ends what the compiler can interleave.
template <int Dim>
__device__ constexpr bool beyond(int column, int dim) {
  return Dim > 128 && column >= 128 && column / 64 * 64 >= dim;
}

template <int M, int Columns>
using Block = float[M][Columns / 8][4];

template <int M, int Blocks>
__device__ inline void clear(float (&sum)[M][Blocks][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < Blocks; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[m][n][i] = 0;
}

// s = own rows [own_row, own_row + 16 M) times other rows [other_row, other_row + 8 Blocks), over the first `dim` columns.
template <class Element, int M, int Blocks, int RowsA, int RowsB, int Dim>
__device__ inline void products(float (&s)[M][Blocks][4], const SharedTile<RowsA, Dim>& own, int own_row,
                                const SharedTile<RowsB, Dim>& other, int other_row, int dim) {
  const int lane = warp_lane();
  const Lines<Dim> left(own, own_row + (lane & 15), lane >> 4);
  const Lines<Dim> right(other, other_row + (lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
  clear(s);
#pragma unroll
  for (int step = 0; step < Dim / 16; ++step) {
    if (beyond<Dim>(16 * step, dim)) continue;
    std::uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_matrices(a[m], left.at(16 * m, 2 * step));
#pragma unroll
    for (int n = 0; n < Blocks; n += 2) {
      std::uint32_t b[4];
      load_matrices(b, right.at(8 * n, 2 * step));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply<Element>(s[m][n], a[m], b[0], b[1]);
        multiply<Element>(s[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// sum += weight times other rows [other_row, other_row + 8 Blocks), in the first `dim` columns. Weights are rounded to Element.
template <class Element, int M, int Blocks, int Columns, int Rows>
__device__ inline void add_weighted(float (&sum)[M][Columns][4], const float (&weight)[M][Blocks][4],
                                    const SharedTile<Rows, Columns * 8>& other, int other_row, int dim) {
  const int lane = warp_lane();
  const Lines<Columns * 8> lines(other, other_row + (lane & 15), lane >> 4);
#pragma unroll
  for (int k = 0; k < Blocks; k += 2) {
    std::uint32_t a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) a[m][i] = pack<Element>(weight[m][k + i / 2][i % 2 * 2], weight[m][k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int n = 0; n < Columns; n += 2) {
      if (beyond<Columns * 8>(8 * n, dim)) continue;
      std::uint32_t b[4];
      load_matrices_transposed(b, lines.at(8 * k, n));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply<Element>(sum[m][n], a[m], b[0], b[1]);
        multiply<Element>(sum[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// A tensor that results go to. `pairs`: two neighbours can be written at once.
struct Sink {
  unsigned char* data;
  std::int64_t token_stride, head_stride;  // elements
  std::int32_t dim;
  bool is_float, pairs;
};

__device__ inline Sink sink_of(const View& view, std::int64_t dim, bool is_float) {
  const std::uintptr_t mask = is_float ? 7 : 3;
  const bool pairs =
      (reinterpret_cast<std::uintptr_t>(view.data) & mask) == 0 && view.token_stride % 2 == 0 && view.head_stride % 2 == 0;
  return {static_cast<unsigned char*>(view.data), view.token_stride, view.head_stride,
          static_cast<std::int32_t>(dim),         is_float,          pairs};
}

struct alignas(8) FloatPair {
  float low, high;
};
template <class Element>
struct alignas(4) ElementPair {
  Element low, high;
};

// Writes row `row` of one head from blocks sum[0 ..], d[2 half] and d[2 half + 1], times `factor`; `zero` writes 0 instead.
// Returns 0, or NaN where something that was written is not finite.
template <class Element, int Columns>
__device__ inline float write_row(const float (&sum)[Columns][4], int half, float factor, bool zero, const Sink& sink,
                                  std::int64_t head, std::int64_t row) {
  float trace = 0;
  const std::int64_t offset = row * sink.token_stride + head * sink.head_stride;
#pragma unroll
  for (int n = 0; n < Columns; ++n) {
    const int column = 8 * n + column_in_block();
    if (column >= sink.dim) continue;
    const float low = zero ? 0.0f : sum[n][2 * half] * factor, high = zero ? 0.0f : sum[n][2 * half + 1] * factor;
    const bool both = column + 1 < sink.dim;
    trace += low * 0.0f;
    if (both) trace += high * 0.0f;
    if (sink.is_float) {
      float* place = reinterpret_cast<float*>(sink.data) + offset + column;
      if (sink.pairs && both) {
        *reinterpret_cast<FloatPair*>(place) = {low, high};
      } else {
        place[0] = low;
        if (both) place[1] = high;
      }
    } else {
      const std::uint32_t packed = pack<Element>(low, high);
      const Element first{static_cast<std::uint16_t>(packed & 0xffffu)}, second{static_cast<std::uint16_t>(packed >> 16)};
      Element* place = reinterpret_cast<Element*>(sink.data) + offset + column;
      if (sink.pairs && both) {
        *reinterpret_cast<ElementPair<Element>*>(place) = {first, second};
      } else {
        place[0] = first;
        if (both) place[1] = second;
      }
    }
  }
  return trace;
}

}  // namespace hetsp::attention::cuda::mma
