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

template <class Element>
__global__ void __launch_bounds__(prepare_threads)
    prepare_kernel(const __grid_constant__ BackwardParams params, float* sums, int dim) {
  prepare_rows<Element>(params, sums, dim);
}

}  // namespace

void prepare(const BackwardParams& params, float* dq_sums, void* stream) {
  int device = 0, sms = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  const std::int64_t blocks = ceil_div<std::int64_t>(params.shape.total_q * params.shape.heads, prepare_threads / pair_threads);
  const auto grid = static_cast<unsigned>(smaller<std::int64_t>(blocks, std::int64_t{sms} * (2048 / prepare_threads)));
  const auto kernel = params.shape.dtype == DType::bfloat16 ? prepare_kernel<BFloat16> : prepare_kernel<Float16>;
  kernel<<<grid, prepare_threads, 0, static_cast<cudaStream_t>(stream)>>>(params, dq_sums, backward_tile(params.shape).dim);
  check(cudaGetLastError(), "varlen_attention_backward on Hopper, D");
}

void finish_dq(const BackwardParams& params, const float* dq_sums, void* stream) {
  const int dim = backward_tile(params.shape).dim;
  const std::int64_t groups = params.shape.total_q * params.shape.heads * (dim / sums_group);
  launch("varlen_attention_backward on Hopper, dq", finish_dq_kernel, ceil_div<std::int64_t>(groups, block_threads), 0, stream,
         params, dq_sums, dim);
}

}  // namespace hetsp::attention::cuda::hopper
