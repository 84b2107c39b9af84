// cu_seqlens -> segments on the device, see cu_seqlens_to_segments in cuda_kernels.h.
#pragma once

#include <cstdint>

#include "hetsp/attention/cu_seqlens.h"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

// Rows of document `i`: begin in [0, total], end in [begin, total]; with `used` no more than used[i] of them.
__device__ inline RowRange document(const void* offsets, const void* used, bool is_int64, std::int64_t i, std::int64_t total) {
  const auto at = [&](const void* array, std::int64_t j) {
    return is_int64 ? static_cast<const std::int64_t*>(array)[j]
                    : static_cast<std::int64_t>(static_cast<const std::int32_t*>(array)[j]);
  };
  const std::int64_t begin = smaller(larger<std::int64_t>(at(offsets, i), 0), total);
  const std::int64_t end = smaller(larger(at(offsets, i + 1), begin), total);
  if (used == nullptr) return {begin, end};
  return {begin, begin + smaller(larger<std::int64_t>(at(used, i), 0), end - begin)};
}

__device__ inline void write_segments(const CuSeqlens& params, Segment* segments) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * block_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < params.batch; i += stride) {
    const RowRange q = document(params.q, params.used_q, params.is_int64, i, params.total_q);
    const RowRange k = document(params.k, params.used_k, params.is_int64, i, params.total_k);
    const std::int64_t offset = (k.end - k.begin) - (q.end - q.begin);
    segments[i] = {q.begin, q.end, k.begin, k.end, offset, 0, params.left, params.right};
  }
}

}  // namespace hetsp::attention::cuda
