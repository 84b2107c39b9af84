// dK and dV of an item from the accumulators to memory, any stride, through a little shared memory of each warp.
//
// An accumulator gives a thread two neighbours of every eight columns of two rows: written as they lie, a store of a warp would
// touch eight rows, and turning the pairs around between threads (backward_output.cuh) took 5000 cycles an item. Here a warp
// puts 128 bytes of its 16 rows into shared memory, chunks permuted as in shared_tile.cuh, and takes 16 bytes a thread out of
// it: eight threads write a whole line.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_output.cuh"
#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int staging_rows = 16, staging_bytes = staging_rows * 128;  // of a warp

struct alignas(8) TwoFloats {
  float at[2];
};

// Rows `row` to row + 15 of the item are the warp's: of them, the 128 bytes in `staging` that begin at column `column`.
template <class Number>
__device__ inline void write_staged(const unsigned char* staging, const View& view, std::int64_t dim, const Step& step, int row,
                                    int column) {
  constexpr int piece = 16 / sizeof(Number);  // numbers of a thread
  const int lane = static_cast<int>(threadIdx.x & 31u), first = column + lane % 8 * piece;
  const bool aligned =
      ((reinterpret_cast<std::uintptr_t>(view.data) | static_cast<std::uintptr_t>(view.token_stride * sizeof(Number)) |
        static_cast<std::uintptr_t>(view.head_stride * sizeof(Number))) &
       15) == 0;
  auto* to =
      static_cast<Number*>(view.data) + (step.row0 + row + lane / 8) * view.token_stride + step.head * view.head_stride + first;
  if (first >= dim) return;
  const auto place = [&](int i) { return staging + (4 * i + lane / 8) * 128 + ((lane ^ (4 * i + lane / 8)) % 8 << 4); };
  const auto exists = [&](int i) { return row + 4 * i + lane / 8 < step.rows.end; };
  if (aligned) {
    FourWords words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = *reinterpret_cast<const FourWords*>(place(i));
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (exists(i)) *reinterpret_cast<FourWords*>(to + 4 * i * view.token_stride) = words[i];
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 4; ++i)
#pragma unroll 1
    for (int k = 0; k < piece; ++k)
      if (exists(i)) to[4 * i * view.token_stride + k] = reinterpret_cast<const Number*>(place(i))[k];
}

// The accumulators of 64 rows of a warpgroup times `factor`; `row` is the warp's first in the item. dim is a multiple of 8.
template <class Element, int Dim>
__device__ inline void write_accumulators(const View& view, bool is_float, std::int64_t dim, const Step& step, int row,
                                          const float (&sum)[Dim / 2], float factor, unsigned char* staging) {
  const int octet = static_cast<int>(threadIdx.x >> 2 & 7u), t = static_cast<int>(threadIdx.x & 3u);
  unsigned char* const own = staging + octet * 128;  // and 8 rows on
  if (is_float) {
#pragma unroll
    for (int panel = 0; panel < Dim / 32; ++panel) {
      __syncwarp();
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int at = 4 * (4 * panel + j) + 2 * h;
          *reinterpret_cast<TwoFloats*>(own + h * 8 * 128 + ((2 * j + t / 2) ^ octet) * 16 + t % 2 * 8) =
              TwoFloats{{sum[at] * factor, sum[at + 1] * factor}};
        }
      __syncwarp();
      write_staged<float>(staging, view, dim, step, row, 32 * panel);
    }
    return;
  }
#pragma unroll
  for (int panel = 0; panel < Dim / 64; ++panel) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int at = 4 * (8 * panel + j) + 2 * h;
        *reinterpret_cast<std::uint32_t*>(own + h * 8 * 128 + (j ^ octet) * 16 + t * 4) =
            pack<Element>(sum[at] * factor, sum[at + 1] * factor);
      }
    __syncwarp();
    write_staged<std::uint16_t>(staging, view, dim, step, row, 64 * panel);
  }
}

// `staging`: staging_bytes of the warp's own.
template <class Element, int Dim>
__device__ inline void write_gradients(const BackwardParams& params, const Step& step, int row, const float (&dk)[Dim / 2],
                                       const float (&dv)[Dim / 2], unsigned char* staging) {
  const Shape& shape = params.shape;
  write_accumulators<Element, Dim>(params.dk, params.grads_are_acc, shape.head_dim, step, row, dk,
                                   static_cast<float>(params.score.softmax_scale), staging);
  write_accumulators<Element, Dim>(params.dv, params.grads_are_acc, shape.head_dim_v, step, row, dv, 1, staging);
}

}  // namespace hetsp::attention::cuda::hopper
