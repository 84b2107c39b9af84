#include "hetsp/attention/cuda/segment_index.cuh"

#include "hetsp/attention/cuda/cu_seqlens.cuh"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/scalar/scalar.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

__global__ void __launch_bounds__(block_threads) clear_index_kernel(SegmentRange* ranges, std::int64_t count) {
  clear_index(ranges, count);
}

__global__ void __launch_bounds__(block_threads)
    mark_segments_kernel(const Segment* segments, std::int64_t count, const __grid_constant__ Shape shape, SegmentIndex index) {
  mark_segments(segments, count, shape, index);
}

__global__ void __launch_bounds__(block_threads)
    write_segments_kernel(const __grid_constant__ CuSeqlens cu_seqlens, Segment* segments) {
  allow_next();
  write_segments(cu_seqlens, segments);
}

std::int64_t index_blocks(std::int64_t rows) { return ceil_div<std::int64_t>(rows, index_rows); }

}  // namespace

std::int64_t scalar_workspace_bytes(const Shape& shape) {
  return (index_blocks(shape.total_q) + index_blocks(shape.total_k)) * static_cast<std::int64_t>(sizeof(SegmentRange));
}

SegmentIndex build_index(const Segment* segments, std::int64_t count, const Shape& shape, void* workspace, void* stream) {
  require(count < 0x7fffffff, count, " segments: the CUDA kernels take fewer than 2^31 - 1");
  auto* ranges = static_cast<SegmentRange*>(workspace);
  const SegmentIndex index{ranges, ranges + index_blocks(shape.total_q)};
  const std::int64_t entries = index_blocks(shape.total_q) + index_blocks(shape.total_k);
  launch("clear_index", clear_index_kernel, ceil_div<std::int64_t>(entries, block_threads), 0, stream, ranges, entries);
  launch("mark_segments", mark_segments_kernel, count, 0, stream, segments, count, shape, index);
  return index;
}

void cu_seqlens_to_segments(const CuSeqlens& cu_seqlens, Segment* segments, void* stream) {
  launch("cu_seqlens_to_segments", write_segments_kernel, ceil_div<std::int64_t>(cu_seqlens.batch, block_threads), 0, stream,
         cu_seqlens, segments);
}

}  // namespace hetsp::attention::cuda
