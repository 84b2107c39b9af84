// The two kernels of one element type and bucket; each backward_split_*.cu instantiates one pair, so that they compile side by
// side.
#pragma once

#include "hetsp/attention/cuda/hopper/split_keys.cuh"
#include "hetsp/attention/cuda/hopper/split_queries.cuh"
#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
__global__ void __launch_bounds__(backward_threads, 1)
    split_keys_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList keys,
                      std::int32_t* next_item, std::int32_t together, const __grid_constant__ SplitMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  split_keys_items<Config>(params, keys, next_item, together, maps, *reinterpret_cast<SplitKeysShared<Config>*>(memory));
#endif
}

template <class Config>
__global__ void __launch_bounds__(backward_threads, 1)
    split_queries_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList queries,
                         std::int32_t* next_item, std::int32_t together, const __grid_constant__ SplitMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  split_queries_items<Config>(params, queries, next_item, together, maps,
                              *reinterpret_cast<SplitQueriesShared<Config>*>(memory));
#endif
}

// One block per SM.
template <class Shared, class... Parameters, class... Arguments>
void launch_split(void (*kernel)(Parameters...), void* stream, const Arguments&... arguments) {
  int device = 0, sms = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Shared))),
        "varlen_attention_backward on Hopper, split: shared memory");
  kernel<<<static_cast<unsigned>(sms), backward_threads, sizeof(Shared), static_cast<cudaStream_t>(stream)>>>(arguments...);
  check(cudaGetLastError(), "varlen_attention_backward on Hopper, split");
}

template <class Element, int Dim>
void launch_split_keys(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, std::int32_t together,
                       const SplitMaps& maps, void* stream) {
  using Config = SplitConfig<Element, Dim>;
  launch_split<SplitKeysShared<Config>>(split_keys_kernel<Config>, stream, params, keys, next_item, together, maps);
}

template <class Element, int Dim>
void launch_split_queries(const BackwardParams& params, const TileList& queries, std::int32_t* next_item, std::int32_t together,
                          const SplitMaps& maps, void* stream) {
  using Config = SplitConfig<Element, Dim>;
  launch_split<SplitQueriesShared<Config>>(split_queries_kernel<Config>, stream, params, queries, next_item, together, maps);
}

}  // namespace hetsp::attention::cuda::hopper
