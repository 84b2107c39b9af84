#include "hetsp/attention/cuda/hopper/dq_sums.cuh"

#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/hopper/backward_prepare.cuh"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda::hopper {

namespace {

__global__ void __launch_bounds__(block_threads)
    finish_dq_kernel(const __grid_constant__ BackwardParams params, const float* sums, int dim) {
  finish_dq_groups(params, sums, dim);
}

template <class Element, class Source>
__global__ void __launch_bounds__(prepare_threads)
    prepare_kernel(const __grid_constant__ BackwardParams params, float* sums, int dim, void* rounded) {
  prepare_rows<Element, Source>(params, sums, dim, rounded);
  wait_for_last();  // for what is launched next: this kernel itself needs nothing of a tile list, and may have begun beside it
}

}  // namespace

void prepare(const BackwardParams& params, float* dq_sums, void* rounded, bool beside_list, void* stream) {
  int device = 0, sms = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  const std::int64_t blocks = ceil_div<std::int64_t>(params.shape.total_q * params.shape.heads, prepare_threads / pair_threads);
  const std::int64_t grid = smaller<std::int64_t>(blocks, std::int64_t{sms} * (2048 / prepare_threads));
  const auto of = [&](auto element) {
    using Element = decltype(element);
    return params.out_is_acc ? prepare_kernel<Element, float> : prepare_kernel<Element, Element>;
  };
  const auto kernel = params.shape.dtype == DType::bfloat16 ? of(BFloat16{}) : of(Float16{});
  constexpr const char* what = "varlen_attention_backward on Hopper, D";
  const int dim = backward_tile(params.shape).dim;
  if (beside_list) return launch_early(prepare_threads, what, kernel, grid, 0, stream, params, dq_sums, dim, rounded);
  launch_blocks_of(prepare_threads, what, kernel, grid, 0, stream, params, dq_sums, dim, rounded);
}

void finish_dq(const BackwardParams& params, const float* dq_sums, void* stream) {
  const int dim = backward_tile(params.shape).dim;
  const std::int64_t groups = params.shape.total_q * params.shape.heads * (dim / sums_group);
  launch("varlen_attention_backward on Hopper, dq", finish_dq_kernel, ceil_div<std::int64_t>(groups, block_threads), 0, stream,
         params, dq_sums, dim);
}

}  // namespace hetsp::attention::cuda::hopper
