// A row of dq again, by one warp, key by key from global memory, formulas in params.h: hidden keys are not touched at all. For
// rows whose lse and D are finite and whose dq is not: a K with a NaN or an infinity met them, maybe behind a mask or of
// another document in the tile, where 0 * NaN is NaN. Slow, and never needed by clean data.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/split_queries_shared.cuh"
#include "hetsp/attention/cuda/hopper/split_weight.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda::hopper {

// `lse` times log2(e). All lanes call.
template <class Element, int Dim>
__device__ inline void mend_dq(const BackwardParams& params, const SplitItem& item, std::int64_t row, float lse, float delta) {
  const Shape& shape = params.shape;
  const int lane = lane_index(), head_kv = item.head / static_cast<int>(shape.heads / shape.heads_kv);
  const int dim = static_cast<int>(shape.head_dim), dim_v = static_cast<int>(shape.head_dim_v);
  const auto scale = static_cast<float>(params.score.softmax_scale);
  const WeightFactors factors = weight_factors(params.score);
  const auto element = [](const ConstView& view, std::int64_t token, int head, int column) {
    return to_float(static_cast<const Element*>(view.data)[token * view.token_stride + head * view.head_stride + column]);
  };
  const auto product = [&](const ConstView& of_row, const ConstView& of_key, std::int64_t key, int columns) {
    float sum = 0;
#pragma unroll 1
    for (int column = lane; column < columns; column += 32)
      sum += element(of_row, row, item.head, column) * element(of_key, key, head_kv, column);
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    return sum;
  };
  float dq[Dim / 32] = {};
#pragma unroll 1
  for (int index = item.first; index <= item.last; ++index) {
    const Segment segment = clamped(params.segments[index], shape);
    if (row < segment.q_begin || row >= segment.q_end) continue;
    const RowRange keys = visible_keys(segment, row);
#pragma unroll 1
    for (std::int64_t key = keys.begin; key < keys.end; ++key) {
      const float x = product(params.q, params.k, key, dim) * factors.inner, dp = product(params.dout, params.v, key, dim_v);
      const Weight of = factors.capped ? weight_of<true>(x, factors.cap, lse) : weight_of<false>(x, factors.cap, lse);
      const float ds = of.p * (dp - delta) * of.slope;
#pragma unroll
      for (int i = 0; i < Dim / 32; ++i)
        if (lane + 32 * i < dim) dq[i] += ds * element(params.k, key, head_kv, lane + 32 * i);
    }
  }
#pragma unroll
  for (int i = 0; i < Dim / 32; ++i)
    if (lane + 32 * i < dim)
      store(params.dq.data, params.grads_are_acc ? DType::float32 : shape.dtype,
            row * params.dq.token_stride + item.head * params.dq.head_stride + lane + 32 * i, dq[i] * scale);
}

}  // namespace hetsp::attention::cuda::hopper
