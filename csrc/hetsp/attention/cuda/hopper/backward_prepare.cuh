// What the backward needs ahead of it, in one pass over the rows: dq's sums are zeroed and, unless it is given, D is computed,
//
//   D_i = dout_i . out_i - dlse_i, 0 where lse_i = -inf, whatever the others hold.
//
// A pair (row, head) is 16 threads, each with 8 numbers of out and dout: 16 bytes. The pass is as long as its memory traffic if
// enough of it is under way: few registers, so that 2048 threads share a multiprocessor, and no load that waits for another.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/dq_sums.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int prepare_threads = 256, pair_threads = 16, pairs_at_once = 2;

struct alignas(16) EightHalves {
  std::uint16_t at[8];
};

__device__ inline bool all_pieces_aligned(const ConstView& view) {
  return ((reinterpret_cast<std::uintptr_t>(view.data) & 15) | ((view.token_stride | view.head_stride) & 7)) == 0;
}
__device__ inline EightHalves load_eight(const std::uint16_t* from, bool aligned) {
  if (aligned) return *reinterpret_cast<const EightHalves*>(from);
  EightHalves values;
#pragma unroll
  for (int i = 0; i < 8; ++i) values.at[i] = from[i];
  return values;
}

// Grid-stride over the pairs. sums: [total_q, heads, dim].
template <class Element>
__device__ inline void prepare_rows(const BackwardParams& params, float* sums, int dim) {
  const Shape& shape = params.shape;
  const int lane = static_cast<int>(threadIdx.x) % pair_threads, own = static_cast<int>(threadIdx.x) / pair_threads;
  constexpr int block_pairs = prepare_threads / pair_threads;
  const std::int64_t pairs = shape.total_q * shape.heads;
  const bool aligned = all_pieces_aligned(params.out) && all_pieces_aligned(params.dout);
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * block_pairs; base < pairs;
       base += static_cast<std::int64_t>(gridDim.x) * block_pairs) {
    const bool inside = base + own < pairs;
    const std::int64_t row = (base + own) / shape.heads, head = base + own - row * shape.heads;
    const std::int64_t statistic = head * shape.total_q + row;
    EightHalves out{}, dout{};
    float sum = 0, lse = 0, dlse = 0;
    if (inside && params.fill_delta != nullptr) {
      lse = static_cast<const float*>(params.lse)[statistic];
      if (params.dlse != nullptr) dlse = static_cast<const float*>(params.dlse)[statistic];
      const auto* const out_row = static_cast<const std::uint16_t*>(params.out.data) + row * params.out.token_stride +
                                  head * params.out.head_stride + 8 * lane;
      const auto* const dout_row = static_cast<const std::uint16_t*>(params.dout.data) + row * params.dout.token_stride +
                                   head * params.dout.head_stride + 8 * lane;
      if (8 * lane < shape.head_dim_v) {
        if (aligned) {
          out = load_eight(out_row, true), dout = load_eight(dout_row, true);
        } else {
          out = load_eight(out_row, false), dout = load_eight(dout_row, false);
        }
      }
    }
    for (int column = 4 * lane; inside && column < dim; column += 4 * pair_threads)
      *reinterpret_cast<Four*>(sums + (base + own) * dim + column) = Four{{0, 0, 0, 0}};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += to_float(Element{out.at[i]}) * to_float(Element{dout.at[i]});
#pragma unroll
    for (int bit = 1; bit < pair_threads; bit *= 2) sum += shuffle_xor(sum, bit);
    if (inside && lane == 0 && params.fill_delta != nullptr)
      static_cast<float*>(params.fill_delta)[statistic] = lse == -INFINITY ? 0.0f : sum - dlse;
  }
}

}  // namespace hetsp::attention::cuda::hopper
