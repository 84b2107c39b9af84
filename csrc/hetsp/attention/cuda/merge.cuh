// (out, lse) of two disjoint key sets, as in params.h: M = max(lse_a, lse_b), lse = M + ln(e^(lse_a - M) + e^(lse_b - M)),
// out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b. A side with lse = -inf is not read into the sum at all.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

// 16 pairs (row, head) a turn, 8 threads each. In place is legal: every element is read and written by one thread, but for
// the lse, which all 8 read; so the caller passes another `lse` than lse_a and lse_b.
template <class Acc>
__device__ void merge_rows(const MergeParams& params) {
  const std::int64_t pairs = params.total_q * params.heads;
  const auto at = [&](const auto& view, std::int64_t row, std::int64_t head) {
    return row * view.token_stride + head * view.head_stride;
  };
  for (std::int64_t pair = static_cast<std::int64_t>(blockIdx.x) * groups + group(); pair < pairs;
       pair += static_cast<std::int64_t>(gridDim.x) * groups) {
    const std::int64_t row = pair / params.heads, head = pair % params.heads, statistic = head * params.total_q + row;
    const Acc a = static_cast<const Acc*>(params.lse_a)[statistic], b = static_cast<const Acc*>(params.lse_b)[statistic];
    const Acc top = b > a ? b : a;
    const bool has_a = a != -Acc(INFINITY), has_b = b != -Acc(INFINITY);
    const Acc weight_a = has_a ? std::exp(a - top) : Acc(0), weight_b = has_b ? std::exp(b - top) : Acc(0);
    const Acc total = weight_a + weight_b;
    const auto* out_a = static_cast<const Acc*>(params.out_a.data) + at(params.out_a, row, head);
    const auto* out_b = static_cast<const Acc*>(params.out_b.data) + at(params.out_b, row, head);
    auto* out = static_cast<Acc*>(params.out.data) + at(params.out, row, head);
    for (std::int64_t column = lane(); column < params.head_dim_v; column += lanes) {
      Acc value = 0;
      if (has_a) value += weight_a / total * out_a[column];
      if (has_b) value += weight_b / total * out_b[column];
      out[column] = value;
    }
    if (lane() == 0) static_cast<Acc*>(params.lse)[statistic] = has_a || has_b ? top + std::log(total) : -Acc(INFINITY);
  }
}

}  // namespace hetsp::attention::cuda
