#include "hetsp/attention/cuda/scalar/forward.cuh"

#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/scalar/scalar.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

template <class Acc, int Dim>
__global__ void __launch_bounds__(block_threads)
    forward_kernel(const __grid_constant__ ForwardParams params, const __grid_constant__ SegmentIndex index) {
  extern __shared__ __align__(16) unsigned char memory[];
  forward_tiles(params, index, *reinterpret_cast<ForwardShared<Acc, Dim>*>(memory));
}

}  // namespace

void scalar_forward(const ForwardParams& params, void* workspace, void* stream) {
  const Shape& shape = params.shape;
  select(shape, [&](auto acc, auto bucket) {
    using Acc = decltype(acc);
    constexpr int dim = decltype(bucket)::value;
    const SegmentIndex index = build_index(params.segments, params.segment_count, shape, workspace, stream);
    const std::int64_t tiles = ceil_div<std::int64_t>(shape.total_q, ForwardTile<Acc, dim>::rows);
    launch("varlen_attention_forward", forward_kernel<Acc, dim>, tiles * shape.heads, sizeof(ForwardShared<Acc, dim>), stream,
           params, index);
  });
}

}  // namespace hetsp::attention::cuda
