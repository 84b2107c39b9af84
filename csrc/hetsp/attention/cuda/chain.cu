#include "hetsp/attention/cuda/chain.cuh"

#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

__global__ void __launch_bounds__(block_threads)
    cut_segments_kernel(const Segment* segments, std::int64_t count, const __grid_constant__ PieceRows pieces, Segment* cut) {
  cut_segments(segments, count, pieces, cut);
}

template <class Acc>
__global__ void __launch_bounds__(block_threads)
    poison_kernel(const __grid_constant__ ForwardParams params, const std::int32_t* late) {
  poison<Acc>(params, late);
}

__global__ void __launch_bounds__(block_threads)
    begin_kernel(const __grid_constant__ ForwardParams call, const __grid_constant__ View kept) {
  begin_even_chain(call, kept);
}

__global__ void __launch_bounds__(block_threads)
    end_kernel(const __grid_constant__ ForwardParams call, const __grid_constant__ View kept, const std::int32_t* late) {
  end_even_chain(call, kept, late);
}

constexpr std::int64_t row_blocks = 4096;     // that stride over what is beyond them
constexpr std::int64_t poison_blocks = 1024;  // that mostly find nothing to do

}  // namespace

void launch_cut(const PiecesParams& params, Segment* cut, void* stream) {
  const std::int64_t count = params.call.segment_count;
  launch("pieces_attention_forward, cut", cut_segments_kernel, ceil_div<std::int64_t>(count * params.count, block_threads), 0,
         stream, params.call.segments, count, rows_of(params), cut);
}

void launch_poison(const PiecesParams& params, void* stream) {
  const std::int64_t rows = params.call.shape.total_q * params.call.shape.heads;
  const bool is_double = params.call.shape.dtype == DType::float64;
  launch("pieces_attention_forward, poison", is_double ? poison_kernel<double> : poison_kernel<float>,
         smaller(rows, poison_blocks), 0, stream, params.call, params.late);
}

void launch_begin(const PiecesParams& params, const View& kept, void* stream) {
  const std::int64_t rows = params.call.shape.total_q * params.call.shape.heads;
  launch("pieces_attention_forward, begin", begin_kernel, smaller(ceil_div<std::int64_t>(rows, 4), row_blocks), 0, stream,
         params.call, kept);
}

void launch_end(const PiecesParams& params, const View& kept, void* stream) {
  const std::int64_t rows = params.call.shape.total_q * params.call.shape.heads;
  launch("pieces_attention_forward, end", end_kernel, smaller(ceil_div<std::int64_t>(rows, 4), row_blocks), 0, stream,
         params.call, kept, params.late);
}

}  // namespace hetsp::attention::cuda
