#include "hetsp/attention/cuda/hopper/tensor_map.h"

#include <cuda.h>

#include <cstring>

#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda::hopper {

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);  // its type alone: nothing links to it

// The driver's own function, asked for at run time: the library links no libcuda, which machines without a GPU lack.
Encode encoder() {
  static const Encode encode = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000, cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
    if (result != cudaDriverEntryPointSuccess || address == nullptr)
      throw device::DeviceError("the driver has no cuTensorMapEncodeTiled: it is older than CUDA 12.0");
    return reinterpret_cast<Encode>(address);
  }();
  return encode;
}

CUtensorMapDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::bfloat16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case DType::float16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

}  // namespace

TensorMap tensor_map(const BoxView& view, int columns, int rows) {
  const char* const refusal = box_refusal(view);
  invariant(refusal == nullptr, "a map of a tensor that has none: ", refusal);
  invariant(columns * bytes_of(view.dtype) == 128 && 1 <= rows && rows <= 256, "a box of ", rows, " x ", columns);
  const cuuint64_t extents[3] = {static_cast<cuuint64_t>(view.dim), static_cast<cuuint64_t>(view.heads),
                                 static_cast<cuuint64_t>(view.tokens)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(box_stride(view, view.heads, view.head_stride)),
                                 static_cast<cuuint64_t>(box_stride(view, view.tokens, view.token_stride))};
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(columns), 1, static_cast<cuuint32_t>(rows)};
  const cuuint32_t steps[3] = {1, 1, 1};
  alignas(64) CUtensorMap map;
  static_assert(sizeof(map) == sizeof(TensorMap));
  const CUresult status = encoder()(&map, type_of(view.dtype), 3, const_cast<void*>(view.data), extents, strides, box, steps,
                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw device::DeviceError(concat("cuTensorMapEncodeTiled refuses [", view.tokens, ", ", view.heads, ", ", view.dim,
                                     "] with strides of ", strides[1], " and ", strides[0], " bytes at ", view.data,
                                     ": driver error ", static_cast<int>(status)));
  TensorMap result;
  std::memcpy(&result, &map, sizeof(map));
  return result;
}

}  // namespace hetsp::attention::cuda::hopper
