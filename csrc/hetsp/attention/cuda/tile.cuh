// The four moves that every attention kernel is made of: copy rows to shared memory, multiply two tiles, add a weighted
// tile, read and write single elements of a strided tensor.
//
// A block is 128 threads, seen as 16 groups of 8 lanes. Of a tile of `rows` x `columns`, group g owns rows g R .. g R + R - 1
// (R = rows / 16), lane x the columns x, x + 8, x + 16, ...: reads of a row are spread over the banks, and neighbouring lanes
// write neighbouring elements. Rows in shared memory are one element longer than they need, so that a column of them
// crosses all banks too.
//
// All arithmetic is scalar FMA in the accumulate type: no tensor cores, no warp intrinsics, no asynchronous copies. That
// is slow on purpose: the same text compiles for the host, where it is tested (tests/cpp/support/cuda_on_cpu.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/number.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda {

constexpr int block_threads = 128;
constexpr int lanes = 8;                          // threads side by side along the columns of a tile
constexpr int groups = block_threads / lanes;     // thread groups along its rows
constexpr int warp_threads = 32;

// Columns [begin, end) of a tile that one row of it sees: a mask is one run per row, see segment.h.
struct Run {
  int begin, end;
  __device__ bool holds(int column) const { return begin <= column && column < end; }
  __device__ bool empty() const { return begin >= end; }
};

__device__ inline int lane() { return static_cast<int>(threadIdx.x) % lanes; }
__device__ inline int group() { return static_cast<int>(threadIdx.x) / lanes; }

template <class Integer>
__device__ constexpr Integer smaller(Integer a, Integer b) {
  return b < a ? b : a;
}
template <class Integer>
__device__ constexpr Integer larger(Integer a, Integer b) {
  return a < b ? b : a;
}

// The part of `range` inside a tile of `count` columns that starts at row `first` of the tensor.
__device__ inline Run run_in_tile(RowRange range, std::int64_t first, int count) {
  const auto inside = [&](std::int64_t row) {
    return static_cast<int>(smaller<std::int64_t>(larger<std::int64_t>(row - first, 0), count));
  };
  return {inside(range.begin), inside(range.end)};
}

__device__ inline float widen(float value) { return value; }
__device__ inline double widen(double value) { return value; }
__device__ inline float widen(BFloat16 value) { return to_float(value); }
__device__ inline float widen(Float16 value) { return to_float(value); }

template <class Acc>
__device__ inline Acc load(const void* data, DType dtype, std::int64_t offset) {
  switch (dtype) {
    case DType::float64:
      return static_cast<Acc>(static_cast<const double*>(data)[offset]);
    case DType::float32:
      return static_cast<const float*>(data)[offset];
    case DType::bfloat16:
      return to_float(static_cast<const BFloat16*>(data)[offset]);
    case DType::float16:
      return to_float(static_cast<const Float16*>(data)[offset]);
  }
  return 0;
}

template <class Acc>
__device__ inline void store(void* data, DType dtype, std::int64_t offset, Acc value) {
  switch (dtype) {
    case DType::float64:
      static_cast<double*>(data)[offset] = value;
      break;
    case DType::float32:
      static_cast<float*>(data)[offset] = static_cast<float>(value);
      break;
    case DType::bfloat16:
      static_cast<BFloat16*>(data)[offset] = to_bfloat16(static_cast<float>(value));
      break;
    case DType::float16:
      static_cast<Float16*>(data)[offset] = to_float16(static_cast<float>(value));
      break;
  }
}

template <class Acc>
constexpr DType acc_dtype = sizeof(Acc) == sizeof(double) ? DType::float64 : DType::float32;

template <class Element, class Acc, int Rows, int Pitch>
__device__ void stage_as(Acc (&tile)[Rows][Pitch], const ConstView& view, std::int64_t head, std::int64_t first, int count,
                         int dim) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto* base = static_cast<const Element*>(view.data);
  for (int row = thread / warp_threads; row < Rows; row += block_threads / warp_threads) {
    const std::int64_t offset = (first + row) * view.token_stride + head * view.head_stride;
    for (int column = thread % warp_threads; column < Pitch - 1; column += warp_threads)
      tile[row][column] = row < count && column < dim ? static_cast<Acc>(widen(base[offset + column])) : Acc(0);
  }
}

// Copies rows [first, first + count) of one head, `dim` elements each, into the tile and fills the rest of it with zeros:
// what lies behind the last row is another document's, and may be NaN. A warp reads along a row; the caller synchronises.
template <class Acc, int Rows, int Pitch>
__device__ void stage(Acc (&tile)[Rows][Pitch], const ConstView& view, DType dtype, std::int64_t head, std::int64_t first,
                      int count, std::int64_t dim) {
  const int columns = static_cast<int>(dim);
  if constexpr (sizeof(Acc) == sizeof(double)) {
    stage_as<double>(tile, view, head, first, count, columns);
  } else if (dtype == DType::bfloat16) {
    stage_as<BFloat16>(tile, view, head, first, count, columns);
  } else if (dtype == DType::float16) {
    stage_as<Float16>(tile, view, head, first, count, columns);
  } else {
    stage_as<float>(tile, view, head, first, count, columns);
  }
}

// The way back: writes rows [first, first + count) of one head from the tile. Results leave through shared memory, so that a
// warp writes along a row, and the conversion is one short loop instead of one per register.
template <class Acc, int Rows, int Pitch>
__device__ void unstage(const Acc (&tile)[Rows][Pitch], const View& view, DType dtype, std::int64_t head, std::int64_t first,
                        int count, std::int64_t dim) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int row = thread / warp_threads; row < count; row += block_threads / warp_threads) {
    const std::int64_t offset = (first + row) * view.token_stride + head * view.head_stride;
    for (int column = thread % warp_threads; column < static_cast<int>(dim); column += warp_threads)
      store(view.data, dtype, offset + column, tile[row][column]);
  }
}

// Puts the thread's sums, times `factor` of their row, where unstage reads them; the caller synchronises on both sides.
template <class Acc, int R, int W, int Rows, int Pitch>
__device__ void spread(const Acc (&sum)[R][W], const Acc (&factor)[R], Acc (&tile)[Rows][Pitch]) {
  static_assert(Rows == R * groups && Pitch - 1 == W * lanes, "the threads cover the tile");
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int w = 0; w < W; ++w) tile[group() * R + i][lane() + lanes * w] = sum[i][w] * factor[i];
}

// sum[i][j] = a[row i] . b[row j], over `depth` elements, for the thread's rows i of `a` and rows lane() + 8 j of `b`.
template <class Acc, int R, int C, int RowsA, int RowsB, int Pitch>
__device__ void multiply(const Acc (&a)[RowsA][Pitch], const Acc (&b)[RowsB][Pitch], std::int64_t depth, Acc (&sum)[R][C]) {
  static_assert(RowsA == R * groups && RowsB == C * lanes, "the threads cover both tiles");
  const int row = group() * R, column = lane();
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int j = 0; j < C; ++j) sum[i][j] = 0;
  for (int d = 0; d < static_cast<int>(depth); ++d) {
    Acc left[R];
#pragma unroll
    for (int i = 0; i < R; ++i) left[i] = a[row + i][d];
#pragma unroll
    for (int j = 0; j < C; ++j) {
      const Acc right = b[column + lanes * j][d];
#pragma unroll
      for (int i = 0; i < R; ++i) sum[i][j] += left[i] * right;
    }
  }
}

// sum[i] += weight[row i][j] * tile[j], over the j in run[i] only: a hidden row of `tile` may hold NaN, which a zero weight
// would not stop. One addition per visible j, in order: the result does not depend on how the rows are cut into tiles.
template <class Acc, int R, int W, int Rows, int PitchWeight, int RowsTile, int Pitch>
__device__ void accumulate(const Acc (&weight)[Rows][PitchWeight], const Acc (&tile)[RowsTile][Pitch], const Run (&run)[R],
                           Acc (&sum)[R][W]) {
  static_assert(Rows == R * groups && Pitch - 1 == W * lanes && PitchWeight - 1 == RowsTile, "the threads cover all tiles");
  const int row = group() * R, column = lane();
  Run all{RowsTile, 0};
#pragma unroll
  for (int i = 0; i < R; ++i)
    if (!run[i].empty()) all = {smaller(all.begin, run[i].begin), larger(all.end, run[i].end)};
  for (int j = all.begin; j < all.end; ++j) {
    Acc factor[R];
    bool visible[R];
#pragma unroll
    for (int i = 0; i < R; ++i) factor[i] = weight[row + i][j], visible[i] = run[i].holds(j);
#pragma unroll
    for (int w = 0; w < W; ++w) {
      const Acc value = tile[j][column + lanes * w];
#pragma unroll
      for (int i = 0; i < R; ++i)
        if (visible[i]) sum[i][w] += factor[i] * value;
    }
  }
}

template <int R>
__device__ bool all_empty(const Run (&run)[R]) {
  bool empty = true;
#pragma unroll
  for (int i = 0; i < R; ++i) empty = empty && run[i].empty();
  return empty;
}

// x -> s of params.h for one product q . k.
template <class Acc>
__device__ inline Acc score(Acc product, Acc scale, Acc softcap) {
  const Acc x = product * scale;
  return softcap > 0 ? softcap * std::tanh(x / softcap) : x;
}

}  // namespace hetsp::attention::cuda
