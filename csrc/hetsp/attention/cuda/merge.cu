#include "hetsp/attention/cuda/merge.cuh"

#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

namespace {

template <class Acc>
__global__ void __launch_bounds__(block_threads) merge_kernel(const __grid_constant__ MergeParams params) {
  merge_rows<Acc>(params);
}

}  // namespace

void merge(const MergeParams& params, void* stream) {
  const std::int64_t blocks = ceil_div<std::int64_t>(params.total_q * params.heads, groups);
  launch("merge_attention", params.is_double ? merge_kernel<double> : merge_kernel<float>, blocks, 0, stream, params);
}

}  // namespace hetsp::attention::cuda
