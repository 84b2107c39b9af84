// The first calls that a CUDA program makes, one at a time and each told before it is made: as a program, and as a library
// whose `probe` others call. bench/support/crash_report.py builds it as the package is built, and in simpler ways, to see which
// of them die on a machine.
#include <cuda_runtime.h>
#include <unistd.h>

#include <cstdio>

namespace {

__global__ void write_kernel(int* to) { *to = 7; }

int step(const char* what, cudaError_t status) {
  std::printf("%s: %s\n", what, cudaGetErrorName(status));
  std::fflush(stdout);
  return status == cudaSuccess ? 0 : 1;
}

void begin(const char* what) {
  std::printf("> %s\n", what);
  std::fflush(stdout);
}

}  // namespace

#define HETSP_STEP(call) (begin(#call), step(#call, call))

extern "C" __attribute__((visibility("default"))) int probe() {
  int count = 0, device = 0, major = 0, found = 0;
  int* memory = nullptr;
  if (HETSP_STEP(cudaGetDeviceCount(&count)) || HETSP_STEP(cudaGetDevice(&device)) ||
      HETSP_STEP(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) ||
      HETSP_STEP(cudaMalloc(reinterpret_cast<void**>(&memory), sizeof(int))) ||
      HETSP_STEP(cudaMemsetAsync(memory, 0, sizeof(int), nullptr)) ||
      HETSP_STEP(cudaFuncSetAttribute(write_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536)))
    return 1;
  begin("a kernel's launch");
  write_kernel<<<1, 1, 65536>>>(memory);
  if (step("a kernel's launch", cudaGetLastError()) ||
      HETSP_STEP(cudaMemcpy(&found, memory, sizeof(int), cudaMemcpyDeviceToHost)))
    return 1;
  std::printf("all right: %d of 7, device %d of %d, compute capability %d\n", found, device, count, major);
  return found == 7 ? 0 : 1;
}

int main() { return probe(); }
