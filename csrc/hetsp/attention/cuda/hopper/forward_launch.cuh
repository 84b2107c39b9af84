// The launch of one instantiation of the forward.
#pragma once

#include "hetsp/attention/cuda/hopper/forward.cuh"
#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
__global__ void __launch_bounds__(forward_threads, 1) forward_kernel(const __grid_constant__ ForwardArguments arguments) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char hopper_forward_memory[];
  wait_for_last();
  forward_block(arguments, *reinterpret_cast<ForwardShared<Config>*>(hopper_forward_memory));
#endif
}

// One block a multiprocessor: each takes work until there is none. They take their places while the list of tiles is built.
template <class Config>
void launch_forward(const ForwardArguments& arguments, void* stream) {
  int device = 0, blocks = 0;
  check(cudaGetDevice(&device), "varlen_attention_forward");
  check(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device), "varlen_attention_forward");
  constexpr int bytes = sizeof(ForwardShared<Config>);
  check(cudaFuncSetAttribute(forward_kernel<Config>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "varlen_attention_forward's shared memory");
  launch_early(forward_threads, "varlen_attention_forward", forward_kernel<Config>, blocks, bytes, stream, arguments);
}

}  // namespace hetsp::attention::cuda::hopper
