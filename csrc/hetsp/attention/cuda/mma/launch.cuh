// Host side of the tensor-core kernels' launches: persistent blocks, as many as the device holds at once.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/cuda/bucket.h"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

// Calls call(Element(), Bucket<Dim>()) for a 16-bit shape.
template <class Call>
void select(const Shape& shape, const Call& call) {
  cuda::select(shape, [&](auto, auto bucket) {
    if (shape.dtype == DType::bfloat16) return call(BFloat16{}, bucket);
    return call(Float16{}, bucket);
  });
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}
inline int multiprocessors() { return device_attribute(cudaDevAttrMultiProcessorCount); }
inline bool has_shared_memory(std::size_t bytes) {  // for one block
  return bytes <= static_cast<std::size_t>(device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
}

// Blocks beyond those that fit find no item and end at once, so `blocks_per_multiprocessor` need not be exact.
template <class... Parameters, class... Arguments>
void launch_items(const char* name, void (*kernel)(Parameters...), std::int64_t most_items, int threads,
                  std::size_t shared_bytes, int blocks_per_multiprocessor, void* stream, const Arguments&... arguments) {
  const std::int64_t blocks = smaller<std::int64_t>(most_items, std::int64_t{multiprocessors()} * blocks_per_multiprocessor);
  if (blocks <= 0) return;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (status != cudaSuccess) check(status, concat(name, " needs ", shared_bytes, " bytes of shared memory a block").c_str());
  kernel<<<static_cast<unsigned>(blocks), threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  check(cudaGetLastError(), name);
}

}  // namespace hetsp::attention::cuda::mma
