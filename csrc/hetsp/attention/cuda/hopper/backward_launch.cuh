// The kernels of one element type and bucket; each backward_*.cu instantiates one, so that they compile side by side.
#pragma once

#include "hetsp/attention/cuda/hopper/backward.cuh"
#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Element, class Shared, bool Softcap>
__global__ void __launch_bounds__(backward_threads, 1)
    backward_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList keys,
                    std::int32_t* next_item, const __grid_constant__ BackwardMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  backward_items<Element, Shared, Softcap>(params, keys, next_item, maps, *reinterpret_cast<Shared*>(memory));
#endif
}

// One block per SM.
template <class Element, int Dim, int Queries>
void launch_backward(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, const BackwardMaps& maps,
                     void* stream) {
  using Shared = BackwardShared<Dim, Queries>;
  const auto kernel =
      params.score.softcap > 0 ? backward_kernel<Element, Shared, true> : backward_kernel<Element, Shared, false>;
  int device = 0, sms = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Shared))),
        "varlen_attention_backward on Hopper: shared memory");
  kernel<<<static_cast<unsigned>(sms), backward_threads, sizeof(Shared), static_cast<cudaStream_t>(stream)>>>(params, keys,
                                                                                                              next_item, maps);
  check(cudaGetLastError(), "varlen_attention_backward on Hopper");
}

}  // namespace hetsp::attention::cuda::hopper
