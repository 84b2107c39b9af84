#include "support/fake_cuda_runtime.h"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <map>

namespace fake_cuda {

namespace {

constexpr std::size_t kUnasked = 48 * 1024;  // shared memory that a block has without asking

struct Kernel {
  std::string name;
  std::size_t shared_bytes = kUnasked;
};

struct State {
  Device device;
  std::map<const void*, Kernel> kernels;  // by the address of their host function
  std::vector<Call> calls;
  int until_failure = -1, failure = 0, maps = 0;
  cudaError_t last = cudaSuccess;
};

State& state() {
  static State all;  // kernels are registered by constructors of other files, before main
  return all;
}

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

cudaError_t answer(cudaError_t status) {
  if (status != cudaSuccess) state().last = status;
  return status;
}

cudaError_t refusal(const void* function, dim3 grid, dim3 block, std::size_t shared_bytes) {
  State& all = state();
  if (!all.device.present) return cudaErrorNoDevice;
  if (all.until_failure == 0) {
    all.until_failure = -1;
    return static_cast<cudaError_t>(all.failure);
  }
  if (all.until_failure > 0) --all.until_failure;
  const auto kernel = all.kernels.find(function);
  if (kernel == all.kernels.end()) return cudaErrorInvalidDeviceFunction;
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.x > 0x7fffffffU || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535 || threads == 0 ||
      threads > 1024)
    return cudaErrorInvalidConfiguration;
  return shared_bytes > kernel->second.shared_bytes ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, bool early) {
  const cudaError_t status = refusal(function, grid, block, shared_bytes);
  if (status == cudaSuccess)
    state().calls.push_back({state().kernels[function].name, std::size_t{grid.x} * grid.y * grid.z,
                             std::size_t{block.x} * block.y * block.z, shared_bytes, stream, early});
  return answer(status);
}

// A map needs what the real encoder asks for: 16-byte aligned memory and strides, a box of 128 bytes in its first dimension.
CUresult encode(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void* data, const cuuint64_t* extents,
                const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps, CUtensorMapInterleave,
                CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  bool right = rank == 3 && data != nullptr && reinterpret_cast<std::uintptr_t>(data) % 16 == 0 &&
               reinterpret_cast<std::uintptr_t>(map) % 64 == 0;
  for (cuuint32_t axis = 0; axis < rank; ++axis) {
    right = right && extents[axis] >= 1 && box[axis] >= 1 && box[axis] <= 256 && steps[axis] == 1;
    if (axis > 0) right = right && strides[axis - 1] % 16 == 0 && strides[axis - 1] < (cuuint64_t{1} << 40);
  }
  if (!right) return CUDA_ERROR_INVALID_VALUE;
  std::memset(map, 0x5a, sizeof(*map));
  ++state().maps;
  return CUDA_SUCCESS;
}

struct Configuration {  // of a launch by <<<>>>, between its two halves
  dim3 grid, block;
  std::size_t shared_bytes;
  void* stream;
};
thread_local Configuration pushed;

}  // namespace

void reset(const Device& device) {
  State& all = state();
  all.device = device, all.until_failure = -1, all.maps = 0, all.last = cudaSuccess;
  all.calls.clear();
  for (auto& [address, kernel] : all.kernels) kernel.shared_bytes = kUnasked;
}
void fail_launch(int number, int status) { state().until_failure = number, state().failure = status; }
const std::vector<Call>& calls() { return state().calls; }
int registered() { return static_cast<int>(state().kernels.size()); }
int maps() { return state().maps; }

}  // namespace fake_cuda

using fake_cuda::answer;
using fake_cuda::state;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = state().device.present ? state().device.ordinal + 1 : 0;
  return answer(state().device.present ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaGetDevice(int* device) {
  *device = state().device.ordinal;
  return answer(state().device.present ? cudaSuccess : cudaErrorNoDevice);
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != state().device.ordinal) return answer(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = state().device.capability / 10;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = state().device.capability % 10;
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = state().device.multiprocessors;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = state().device.shared_bytes;
      break;
    default:
      return answer(cudaErrorInvalidValue);  // give it its number here when the library asks for it
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  const auto kernel = state().kernels.find(function);
  if (kernel == state().kernels.end()) return answer(cudaErrorInvalidDeviceFunction);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > state().device.shared_bytes)
    return answer(cudaErrorInvalidValue);
  kernel->second.shared_bytes = static_cast<std::size_t>(value);
  return cudaSuccess;
}
cudaError_t cudaGetLastError() {
  const cudaError_t last = state().last;
  state().last = cudaSuccess;
  return last;
}
const char* cudaGetErrorName(cudaError_t status) { return status == cudaErrorNoDevice ? "cudaErrorNoDevice" : "a fake error"; }
const char* cudaGetErrorString(cudaError_t status) { return status == cudaErrorNoDevice ? "no device" : "as the test wished"; }
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes > 0 && memory == nullptr) return answer(cudaErrorInvalidValue);
  if (bytes > 0) std::memset(memory, value, bytes);
  state().calls.push_back({"memset", bytes, 0, 0, stream, false});
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = state().device.captures ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** address, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool found = state().device.encodes_maps && std::strcmp(name, "cuTensorMapEncodeTiled") == 0;
  *address = found ? reinterpret_cast<void*>(&fake_cuda::encode) : nullptr;
  *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void**) {
  bool early = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    if (config->attrs[i].id != cudaLaunchAttributeProgrammaticStreamSerialization) return answer(cudaErrorInvalidValue);
    early = config->attrs[i].val.programmaticStreamSerializationAllowed != 0;
  }
  return fake_cuda::launch(function, config->gridDim, config->blockDim, config->dynamicSmemBytes, config->stream, early);
}

// What nvcc writes into an object: a constructor that registers its kernels, and for each a function of its name that launches.
// NOLINTBEGIN(bugprone-reserved-identifier): the names are nvcc's
void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  state().kernels[function].name = fake_cuda::demangled(name);
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared_bytes, CUstream_st* stream) {
  fake_cuda::pushed = {grid, block, shared_bytes, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared_bytes, void* stream) {
  *grid = fake_cuda::pushed.grid, *block = fake_cuda::pushed.block, *shared_bytes = fake_cuda::pushed.shared_bytes;
  *static_cast<void**>(stream) = fake_cuda::pushed.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**, std::size_t shared_bytes,
                               cudaStream_t stream) {
  return fake_cuda::launch(kernel, grid, block, shared_bytes, stream, false);
}
// NOLINTEND(bugprone-reserved-identifier)

}  // extern "C"
