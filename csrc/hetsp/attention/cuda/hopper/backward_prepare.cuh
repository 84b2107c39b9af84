// What the backward needs ahead of it, in one pass over the rows: dq's sums are zeroed, a float32 dout is rounded to the
// inputs' type, for all that is made of it, and, unless it is given, D is computed,
//
//   D_i = dout_i . out_i - dlse_i, 0 where lse_i = -inf, whatever the others hold.
//
// A pair (row, head) is 16 threads, each with 8 numbers of out and dout: 16 bytes. The pass is as long as its memory traffic if
// enough of it is under way: few registers, so that 2048 threads share a multiprocessor, and no load that waits for another.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda/hopper/backward_output.cuh"
#include "hetsp/attention/cuda/hopper/dq_sums.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

constexpr int prepare_threads = 256, pair_threads = 16, pairs_at_once = 2;

// Eight neighbours of out or dout: BFloat16, Float16 or float.
template <class Source>
struct alignas(16) Eight {
  Source at[8];
};

template <class Source>
__device__ inline float widened(Source value) {
  if constexpr (std::is_same_v<Source, float>) {
    return value;
  } else {
    return to_float(value);
  }
}

template <class Source>
__device__ inline bool all_pieces_aligned(const ConstView& view) {
  constexpr std::int64_t piece = 16 / sizeof(Source);
  return ((reinterpret_cast<std::uintptr_t>(view.data) & 15) | ((view.token_stride | view.head_stride) & (piece - 1))) == 0;
}
template <class Source>
__device__ inline Eight<Source> load_eight(const ConstView& view, std::int64_t row, std::int64_t head, int column,
                                           bool aligned) {
  const Source* from = static_cast<const Source*>(view.data) + row * view.token_stride + head * view.head_stride + column;
  if (aligned) return *reinterpret_cast<const Eight<Source>*>(from);
  Eight<Source> values;
#pragma unroll
  for (int i = 0; i < 8; ++i) values.at[i] = from[i];
  return values;
}

// Grid-stride over the pairs. sums: [total_q, heads, dim]. Source: the type of out and dout; where that is float, `rounded`
// gets dout, [total_q, heads, head_dim_v].
template <class Element, class Source>
__device__ inline void prepare_rows(const BackwardParams& params, float* sums, int dim, void* rounded) {
  const Shape& shape = params.shape;
  const int lane = static_cast<int>(threadIdx.x) % pair_threads, own = static_cast<int>(threadIdx.x) / pair_threads;
  constexpr int block_pairs = prepare_threads / pair_threads;
  const std::int64_t pairs = shape.total_q * shape.heads;
  const bool aligned = all_pieces_aligned<Source>(params.out) && all_pieces_aligned<Source>(params.dout);
  constexpr bool rounds = std::is_same_v<Source, float>;
  for (std::int64_t base = static_cast<std::int64_t>(blockIdx.x) * block_pairs; base < pairs;
       base += static_cast<std::int64_t>(gridDim.x) * block_pairs) {
    const bool inside = base + own < pairs;
    const std::int64_t row = (base + own) / shape.heads, head = base + own - row * shape.heads;
    const std::int64_t statistic = head * shape.total_q + row;
    const bool has_columns = inside && 8 * lane < shape.head_dim_v, fills = params.fill_delta != nullptr;
    Eight<Source> out{}, dout{};
    float sum = 0, lse = 0, dlse = 0;
    if (inside && fills) {
      lse = static_cast<const float*>(params.lse)[statistic];
      if (params.dlse != nullptr) dlse = static_cast<const float*>(params.dlse)[statistic];
    }
    const auto load = [&](bool as_pieces) {
      dout = load_eight<Source>(params.dout, row, head, 8 * lane, as_pieces);
      if (fills) out = load_eight<Source>(params.out, row, head, 8 * lane, as_pieces);
    };
    if (has_columns && (fills || rounds)) aligned ? load(true) : load(false);
    for (int column = 4 * lane; inside && column < dim; column += 4 * pair_threads)
      *reinterpret_cast<Four*>(sums + (base + own) * dim + column) = Four{{0, 0, 0, 0}};
    if constexpr (rounds) {
      FourWords words;
#pragma unroll
      for (int i = 0; i < 4; ++i) words.at[i] = pack<Element>(dout.at[2 * i], dout.at[2 * i + 1]);
      if (has_columns) static_cast<FourWords*>(rounded)[((base + own) * shape.head_dim_v + 8 * lane) / 8] = words;
#pragma unroll
      for (int i = 0; i < 8; ++i) dout.at[i] = to_float(Element{static_cast<std::uint16_t>(words.at[i / 2] >> 16 * (i % 2))});
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += widened(out.at[i]) * widened(dout.at[i]);
#pragma unroll
    for (int bit = 1; bit < pair_threads; bit *= 2) sum += shuffle_xor(sum, bit);
    if (inside && lane == 0 && fills) static_cast<float*>(params.fill_delta)[statistic] = lse == -INFINITY ? 0.0f : sum - dlse;
  }
}

}  // namespace hetsp::attention::cuda::hopper
