// Which segments touch which rows. Lengths live on the device and reading them on the host would stop the stream, so the
// work list is built there: for every block of 64 query rows, and of 64 key rows, the first and the last segment of the list
// that touches it. A tile then walks that range in list order and skips what misses it.
//
// The range is tight where neighbours in the list are neighbours in memory, as from cu_seqlens. A list that jumps about is
// right but slow: a tile reads every segment between its first and its last, 64 bytes each. One minimum and one maximum
// per touched block are the only atomics; they commute, so the index is the same in every run.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda {

constexpr int index_rows = 64;  // every tile lies within one block of the index: its rows divide this

struct SegmentRange {
  std::int32_t first, last;  // positions in the list; first > last: none
};

struct SegmentIndex {
  SegmentRange* queries;  // [ceil(total_q / index_rows)]
  SegmentRange* keys;     // [ceil(total_k / index_rows)]
};

// The segment with its rows cut to the tensors. Contents on the device cannot be checked before the launch without a
// sync: out-of-range rows must cost accuracy of a wrong call, never a foreign address.
__device__ inline Segment clamped(Segment segment, const Shape& shape) {
  if (segment.q_begin < 0) segment.q_pos0 -= segment.q_begin, segment.q_begin = 0;
  if (segment.k_begin < 0) segment.k_pos0 -= segment.k_begin, segment.k_begin = 0;
  segment.q_end = smaller(segment.q_end, shape.total_q);
  segment.k_end = smaller(segment.k_end, shape.total_k);
  return segment;
}

// Grid-stride over the `count` entries.
__device__ inline void clear_index(SegmentRange* ranges, std::int64_t count) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * block_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * block_threads + threadIdx.x; i < count; i += stride)
    ranges[i] = {0x7fffffff, -1};
}

__device__ inline void mark(SegmentRange* ranges, std::int64_t begin, std::int64_t end, std::int32_t segment) {
  for (std::int64_t i = begin / index_rows + threadIdx.x; i <= (end - 1) / index_rows; i += block_threads) {
    atomicMin(&ranges[i].first, segment);
    atomicMax(&ranges[i].last, segment);
  }
}

// One block per segment, then the next: marks every block of rows that it touches.
__device__ inline void mark_segments(const Segment* segments, std::int64_t count, const Shape& shape, SegmentIndex index) {
  for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
    const Segment segment = clamped(segments[i], shape);
    if (segment.q_begin >= segment.q_end || segment.k_begin >= segment.k_end) continue;
    mark(index.queries, segment.q_begin, segment.q_end, static_cast<std::int32_t>(i));
    mark(index.keys, segment.k_begin, segment.k_end, static_cast<std::int32_t>(i));
  }
}

}  // namespace hetsp::attention::cuda
