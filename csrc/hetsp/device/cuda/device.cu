#include <cuda_runtime.h>

#include "hetsp/device/device.h"

namespace hetsp::device {

bool cuda_compiled() { return true; }

int cuda_device_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

const char* cuda_absent_why() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) return cudaGetErrorString(status);
  return count > 0 ? "" : "the driver reports no CUDA device";
}

}  // namespace hetsp::device
