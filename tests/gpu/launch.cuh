// Host side of the programs in this folder: memory, launches and tensor maps, with every answer of CUDA checked.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/number.h"

namespace backend {

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(status));
}

// A vector's copy on the device.
template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values) : count_(values.size()) {
    check(cudaMalloc(&data_, count_ * sizeof(T)), "cudaMalloc");
    check(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { cudaFree(data_); }
  T* device() { return data_; }
  std::vector<T> fetch() {
    std::vector<T> values(count_);
    check(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

template <class Case>
__global__ void __launch_bounds__(Case::threads, 1) kernel(const __grid_constant__ Case body) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char memory[];
  body(*reinterpret_cast<typename Case::Shared*>(memory));
#endif
}

template <class Case>
void run(int blocks, const Case& body) {
  using Shared = typename Case::Shared;
  constexpr int bytes = std::is_empty_v<Shared> ? 0 : static_cast<int>(sizeof(Shared));
  check(cudaFuncSetAttribute(kernel<Case>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "shared memory");
  kernel<Case><<<blocks, Case::threads, bytes>>>(body);
  check(cudaGetLastError(), "launch");
  check(cudaDeviceSynchronize(), "run");
}

// Boxes of `columns` elements (128 bytes) x 1 head x `rows` tokens, swizzled, of a tensor (dim, heads, tokens, strides in
// elements).
template <class Element, class Tensor>
hetsp::attention::cuda::hopper::TensorMap tensor_map(void* data, const Tensor& tensor, int columns, int rows) {
  using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                              const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                              CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
  static Encode encode = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found), "entry point");
    if (entry == nullptr || found != cudaDriverEntryPointSuccess) throw std::runtime_error("no cuTensorMapEncodeTiled");
    return reinterpret_cast<Encode>(entry);
  }();
  constexpr CUtensorMapDataType type = std::is_same_v<Element, float>                        ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                       : std::is_same_v<Element, hetsp::attention::BFloat16> ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                                                                             : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(tensor.dim), static_cast<cuuint64_t>(tensor.heads),
                               static_cast<cuuint64_t>(tensor.tokens)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(tensor.head_stride) * sizeof(Element),
                                 static_cast<cuuint64_t>(tensor.token_stride) * sizeof(Element)};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(columns), 1, static_cast<cuuint32_t>(rows)}, steps[3] = {1, 1, 1};
  CUtensorMap map{};
  const CUresult status =
      encode(&map, type, 3, data, sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled: error " + std::to_string(status));
  hetsp::attention::cuda::hopper::TensorMap result{};
  static_assert(sizeof result == sizeof map);
  std::memcpy(&result, &map, sizeof map);
  return result;
}

}  // namespace backend
