// Host side of every launch: picks the instantiation, asks for shared memory, turns CUDA's answer into an exception.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/cuda/bucket.h"
#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda_kernels.h"
#include "hetsp/base/error.h"
#include "hetsp/device/device.h"

namespace hetsp::attention::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, unless the device is lost
  throw device::DeviceError(concat(what, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status)));
}

// Kernels that follow each other on a stream without a gap, from compute capability 9.0 on: one that calls allow_next lets the
// next, if that is launched by launch_early, take its place before it has ended itself. The next calls wait_for_last before it
// touches memory, and goes on when the one before has ended and all that it wrote can be seen.
__device__ inline void allow_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ inline void wait_for_last() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Queues `kernel` on at most 2^31 - 1 blocks; every kernel here strides over what is beyond its grid.
template <class... Parameters, class... Arguments>
void launch_blocks_of(int threads, const char* name, void (*kernel)(Parameters...), std::int64_t blocks,
                      std::size_t shared_bytes, void* stream, const Arguments&... arguments) {
  if (blocks <= 0) return;
  if (shared_bytes > 48 * 1024) {  // beyond it a kernel has to ask
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (status != cudaSuccess) check(status, concat(name, " needs ", shared_bytes, " bytes of shared memory a block").c_str());
  }
  const auto grid = static_cast<unsigned>(smaller<std::int64_t>(blocks, 0x7fffffff));
  kernel<<<grid, threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
  check(cudaGetLastError(), name);
}

// The same for a kernel that calls wait_for_last, on compute capability 9.0 or later.
template <class... Parameters, class... Arguments>
void launch_early(int threads, const char* name, void (*kernel)(Parameters...), std::int64_t blocks, std::size_t shared_bytes,
                  void* stream, const Arguments&... arguments) {
  if (blocks <= 0) return;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(smaller<std::int64_t>(blocks, 0x7fffffff)),
  config.blockDim = static_cast<unsigned>(threads);
  config.dynamicSmemBytes = shared_bytes, config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &early, config.numAttrs = 1;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), std::int64_t blocks, std::size_t shared_bytes, void* stream,
            const Arguments&... arguments) {
  launch_blocks_of(block_threads, name, kernel, blocks, shared_bytes, stream, arguments...);
}

// Fills the index of segment_index.cuh in the workspace.
SegmentIndex build_index(const Segment* segments, std::int64_t count, const Shape& shape, void* workspace, void* stream);

}  // namespace hetsp::attention::cuda
