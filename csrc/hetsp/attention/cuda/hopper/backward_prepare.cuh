// What the backward needs ahead of it, in one pass over the rows: dq's sums are zeroed and, unless it is given, D is computed,
//
//   D_i = dout_i . out_i - dlse_i, 0 where lse_i = -inf, whatever the others hold.
//
// A pair (row, head) is 16 threads, each with 8 numbers of out and dout at a time: 16 bytes. `pairs_at_once` loads are under
// way per thread, since the pass is as long as its memory traffic.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/dq_sums.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int prepare_threads = 256, pair_threads = 16, pairs_at_once = 4;

struct alignas(16) EightHalves {
  std::uint16_t at[8];
};

// Numbers [8 lane, 8 lane + 8) of a row, 0 beyond its end.
__device__ inline EightHalves load_eight(const ConstView& view, std::int64_t row, std::int64_t head, int lane, int dim) {
  EightHalves values{};
  if (8 * lane >= dim) return values;
  const auto* const from =
      static_cast<const std::uint16_t*>(view.data) + row * view.token_stride + head * view.head_stride + 8 * lane;
  if ((reinterpret_cast<std::uintptr_t>(from) & 15) == 0) return *reinterpret_cast<const EightHalves*>(from);
#pragma unroll
  for (int i = 0; i < 8; ++i) values.at[i] = from[i];
  return values;
}

__device__ inline float widen_half(std::uint16_t bits, bool is_bfloat16) {
  return is_bfloat16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}

// Grid-stride over groups of pairs. sums: [total_q, heads, dim].
__device__ inline void prepare_rows(const BackwardParams& params, float* sums, int dim) {
  const Shape& shape = params.shape;
  const int lane = static_cast<int>(threadIdx.x) % pair_threads, own = static_cast<int>(threadIdx.x) / pair_threads;
  constexpr int block_pairs = prepare_threads / pair_threads;
  const std::int64_t pairs = shape.total_q * shape.heads;
  const bool is_bfloat16 = shape.dtype == DType::bfloat16;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * block_pairs * pairs_at_once; base < pairs;
       base += static_cast<std::int64_t>(gridDim.x) * block_pairs * pairs_at_once) {
    const std::int64_t first = base + own, first_row = first / shape.heads;
    const auto first_head = static_cast<std::uint32_t>(first - first_row * shape.heads);
    const auto heads = static_cast<std::uint32_t>(shape.heads);
    EightHalves out[pairs_at_once], dout[pairs_at_once];
    std::int64_t row[pairs_at_once];
    std::int64_t head[pairs_at_once];
#pragma unroll
    for (int i = 0; i < pairs_at_once; ++i) {
      const std::uint32_t beyond_row = first_head + static_cast<std::uint32_t>(i * block_pairs);  // 32-bit divisions are cheap
      row[i] = first_row + beyond_row / heads, head[i] = beyond_row % heads;
      out[i] = dout[i] = EightHalves{};
      if (params.fill_delta == nullptr || row[i] >= shape.total_q) continue;
      out[i] = load_eight(params.out, row[i], head[i], lane, static_cast<int>(shape.head_dim_v));
      dout[i] = load_eight(params.dout, row[i], head[i], lane, static_cast<int>(shape.head_dim_v));
    }
#pragma unroll
    for (int i = 0; i < pairs_at_once; ++i) {
      float sum = 0;
#pragma unroll
      for (int x = 0; x < 8; ++x) sum += widen_half(out[i].at[x], is_bfloat16) * widen_half(dout[i].at[x], is_bfloat16);
#pragma unroll
      for (int bit = 1; bit < pair_threads; bit *= 2) sum += shuffle_xor(sum, bit);
      if (row[i] >= shape.total_q) continue;
      for (int column = 4 * lane; column < dim; column += 4 * pair_threads)
        *reinterpret_cast<Four*>(sums + (row[i] * shape.heads + head[i]) * dim + column) = Four{{0, 0, 0, 0}};
      if (lane != 0 || params.fill_delta == nullptr) continue;
      const std::int64_t statistic = head[i] * shape.total_q + row[i];
      if (params.dlse != nullptr) sum -= static_cast<const float*>(params.dlse)[statistic];
      static_cast<float*>(params.fill_delta)[statistic] =
          static_cast<const float*>(params.lse)[statistic] == -INFINITY ? 0.0f : sum;
    }
  }
}

}  // namespace hetsp::attention::cuda::hopper
