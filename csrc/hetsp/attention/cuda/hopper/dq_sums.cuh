// The float32 sums of dq in memory, [total_q][heads][dim], and their way to dq.
//
// In odd rows the two halves of every 32 columns have changed places. So the 8-byte pieces that 16 threads store at a time, of
// 8 columns in four neighbouring rows, meet in no bank of shared memory: the 128-byte swizzle alone leaves rows 2 i and 2 i + 1
// in the same two 16-byte chunks.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int sums_group = 16;  // columns that lie together, in order

__device__ constexpr int sums_position(std::int64_t row, int column) { return column ^ static_cast<int>(row & 1) * sums_group; }

struct alignas(16) Four {
  float at[4];
};

// dq of 16 columns of a row, the `index`-th of the tensor.
__device__ inline void finish_dq_group(const BackwardParams& params, const float* sums, int dim, std::int64_t index) {
  const Shape& shape = params.shape;
  const int groups_per_row = dim / sums_group;
  const std::int64_t pair = index / groups_per_row, row = pair / shape.heads, head = pair % shape.heads;
  const int column = static_cast<int>(index % groups_per_row) * sums_group;
  if (row >= shape.total_q || column >= shape.head_dim) return;
  const auto* source = reinterpret_cast<const Four*>(sums + pair * dim + sums_position(row, column));
  const auto scale = static_cast<float>(params.score.softmax_scale);
  alignas(16) float values[sums_group];
#pragma unroll
  for (int i = 0; i < sums_group / 4; ++i) {
    const Four piece = source[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) values[4 * i + j] = piece.at[j] * scale;
  }
  const std::int64_t offset = row * params.dq.token_stride + head * params.dq.head_stride + column;
  const DType dtype = params.grads_are_acc ? DType::float32 : shape.dtype;
  auto* const to = static_cast<unsigned char*>(params.dq.data) + offset * (params.grads_are_acc ? 4 : 2);
  if (column + sums_group > shape.head_dim || (reinterpret_cast<std::uintptr_t>(to) & 15) != 0) {
    for (int i = 0; i < sums_group; ++i)
      if (column + i < shape.head_dim) store(params.dq.data, dtype, offset + i, values[i]);
    return;
  }
  if (params.grads_are_acc) {
#pragma unroll
    for (int i = 0; i < sums_group / 4; ++i) reinterpret_cast<Four*>(to)[i] = reinterpret_cast<const Four*>(values)[i];
    return;
  }
  alignas(16) std::uint16_t bits[sums_group];
#pragma unroll
  for (int i = 0; i < sums_group; ++i)
    bits[i] = dtype == DType::bfloat16 ? to_bfloat16(values[i]).bits : to_float16(values[i]).bits;
#pragma unroll
  for (int i = 0; i < sums_group / 8; ++i) reinterpret_cast<Four*>(to)[i] = reinterpret_cast<const Four*>(bits)[i];
}

// All of them, grid-stride.
__device__ inline void finish_dq_groups(const BackwardParams& params, const float* sums, int dim) {
  const std::int64_t count = params.shape.total_q * params.shape.heads * (dim / sums_group);
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * block_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += stride)
    finish_dq_group(params, sums, dim, i);
}

}  // namespace hetsp::attention::cuda::hopper
