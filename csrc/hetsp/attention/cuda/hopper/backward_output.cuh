// dK and dV of an item from the accumulators to memory, any stride.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Element>
__device__ inline void store_pair(void* data, std::int64_t offset, float low, float high, bool is_float, bool paired) {
  if (is_float) {
    auto* to = static_cast<float*>(data) + offset;
    to[0] = low, to[1] = high;
  } else if (const std::uint32_t both = pack<Element>(low, high); paired) {
    *reinterpret_cast<std::uint32_t*>(static_cast<std::uint16_t*>(data) + offset) = both;
  } else {
    auto* to = static_cast<std::uint16_t*>(data) + offset;
    to[0] = static_cast<std::uint16_t>(both), to[1] = static_cast<std::uint16_t>(both >> 16);
  }
}

// Rows `row` and row + 8 of the tile, the thread's columns of the accumulator (wgmma.cuh), times `factor`. `dim` is a multiple
// of 8.
template <class Element, int Dim>
__device__ inline void write_rows(const View& view, bool is_float, std::int64_t dim, std::int64_t head, std::int64_t row0,
                                  int rows, int row, int lane, const float (&sum)[Dim / 2], float factor) {
  // Pairs of 16-bit numbers leave in one piece where every row begins at an even element.
  const bool paired =
      ((view.token_stride | view.head_stride) & 1) == 0 && (reinterpret_cast<std::uintptr_t>(view.data) & 3) == 0;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (row + 8 * h >= rows) continue;
    const std::int64_t offset = (row0 + row + 8 * h) * view.token_stride + head * view.head_stride + 2 * (lane % 4);
#pragma unroll
    for (int j = 0; j < Dim / 8; ++j)
      if (8 * j < dim)
        store_pair<Element>(view.data, offset + 8 * j, sum[4 * j + 2 * h] * factor, sum[4 * j + 2 * h + 1] * factor, is_float,
                            paired);
  }
}

template <class Element, int Dim>
__device__ inline void write_gradients(const BackwardParams& params, const Step& step, int row, int lane,
                                       const float (&dk)[Dim / 2], const float (&dv)[Dim / 2]) {
  const Shape& shape = params.shape;
  write_rows<Element, Dim>(params.dk, params.grads_are_acc, shape.head_dim, step.head, step.row0, step.rows.end, row, lane, dk,
                           static_cast<float>(params.score.softmax_scale));
  write_rows<Element, Dim>(params.dv, params.grads_are_acc, shape.head_dim_v, step.head, step.row0, step.rows.end, row, lane,
                           dv, 1);
}

}  // namespace hetsp::attention::cuda::hopper
