#include "hetsp/attention/cuda/scalar/forward_chain.cuh"

#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/scalar/scalar.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

template <class Acc, int Dim>
__global__ void __launch_bounds__(block_threads)
    forward_chain_kernel(const __grid_constant__ Chain chain, const __grid_constant__ SegmentIndex index) {
  extern __shared__ __align__(16) unsigned char memory[];
  forward_chain_tiles(chain, index, *reinterpret_cast<ForwardChainShared<Acc, Dim>*>(memory));
}

}  // namespace

void scalar_forward_chain(const PiecesParams& params, const Chain& chain, void* workspace, void* stream) {
  const Shape& shape = params.call.shape;
  select(shape, [&](auto acc, auto bucket) {
    using Acc = decltype(acc);
    constexpr int dim = decltype(bucket)::value;
    const SegmentIndex index = build_index(params.call.segments, params.call.segment_count, shape, workspace, stream);
    const std::int64_t tiles = ceil_div<std::int64_t>(shape.total_q, ForwardTile<Acc, dim>::rows);
    launch("pieces_attention_forward", forward_chain_kernel<Acc, dim>, tiles * shape.heads,
           sizeof(ForwardChainShared<Acc, dim>), stream, chain, index);
  });
}

}  // namespace hetsp::attention::cuda
