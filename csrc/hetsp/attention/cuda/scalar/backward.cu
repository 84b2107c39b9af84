#include "hetsp/attention/cuda/scalar/backward.cuh"

#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/scalar/scalar.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

template <class Acc>
__global__ void __launch_bounds__(block_threads) delta_kernel(const __grid_constant__ DeltaParams params) {
  __shared__ double partial[groups][lanes];
  backward_delta<Acc>(params, partial);
}

template <class Acc>
__global__ void __launch_bounds__(block_threads) dsink_kernel(const __grid_constant__ BackwardParams params) {
  __shared__ double partial[block_threads];
  backward_dsink<Acc>(params, partial);
}

template <class Acc, int Dim>
__global__ void __launch_bounds__(block_threads)
    dq_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ SegmentIndex index) {
  extern __shared__ __align__(16) unsigned char memory[];
  backward_dq(params, index, *reinterpret_cast<BackwardShared<Acc, Dim>*>(memory));
}

template <class Acc, int Dim>
__global__ void __launch_bounds__(block_threads)
    dkdv_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ SegmentIndex index) {
  extern __shared__ __align__(16) unsigned char memory[];
  backward_dkdv(params, index, *reinterpret_cast<BackwardShared<Acc, Dim>*>(memory));
}

}  // namespace

void delta(const DeltaParams& params, void* stream) {
  const auto kernel = [&](auto acc) {
    launch("attention_delta", delta_kernel<decltype(acc)>, ceil_div<std::int64_t>(params.total_q * params.heads, groups), 0,
           stream, params);
  };
  params.dtype == DType::float64 ? kernel(double{}) : kernel(float{});
}

void sink_gradient(const BackwardParams& params, void* stream) {
  const auto kernel = [&](auto acc) {
    launch("varlen_attention_backward, dsink", dsink_kernel<decltype(acc)>, params.shape.heads, 0, stream, params);
  };
  params.shape.dtype == DType::float64 ? kernel(double{}) : kernel(float{});
}

void scalar_backward(const BackwardParams& params, void* workspace, void* stream) {
  const Shape& shape = params.shape;
  select(shape, [&](auto acc, auto bucket) {
    using Acc = decltype(acc);
    constexpr int dim = decltype(bucket)::value;
    constexpr std::int64_t side = backward_side<Acc, dim>;
    constexpr std::size_t shared = sizeof(BackwardShared<Acc, dim>);
    const SegmentIndex index = build_index(params.segments, params.segment_count, shape, workspace, stream);
    launch("varlen_attention_backward, dq", dq_kernel<Acc, dim>, ceil_div(shape.total_q, side) * shape.heads, shared, stream,
           params, index);
    launch("varlen_attention_backward, dkdv", dkdv_kernel<Acc, dim>, ceil_div(shape.total_k, side) * shape.heads_kv, shared,
           stream, params, index);
  });
}

}  // namespace hetsp::attention::cuda
