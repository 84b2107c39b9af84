#include "hetsp/attention/cuda/hopper/dq_sums.cuh"

#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda::hopper {

namespace {

__global__ void __launch_bounds__(block_threads)
    finish_dq_kernel(const __grid_constant__ BackwardParams params, const float* sums, int dim) {
  finish_dq_groups(params, sums, dim);
}

}  // namespace

void finish_dq(const BackwardParams& params, const float* dq_sums, void* stream) {
  const int dim = backward_tile(params.shape).dim;
  const std::int64_t groups = params.shape.total_q * params.shape.heads * (dim / sums_group);
  launch("varlen_attention_backward on Hopper, dq", finish_dq_kernel, ceil_div<std::int64_t>(groups, block_threads), 0, stream,
         params, dq_sums, dim);
}

}  // namespace hetsp::attention::cuda::hopper
