#include "hetsp/staging/device_runtime.h"

#include <cuda_runtime.h>

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"
#include "hetsp/staging/cuda/gather.cuh"

namespace hetsp::staging {

namespace {

__global__ void __launch_bounds__(cuda::gather_threads) gather_kernel(const __grid_constant__ GatherParams params) {
  cuda::gather_pieces(params);
}

__global__ void nothing_kernel() {}

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clears it, unless the device is lost
  throw device::DeviceError(concat(call, ": ", cudaGetErrorName(status), ": ", cudaGetErrorString(status)));
}

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(void* event) { return static_cast<cudaEvent_t>(event); }

class CudaRuntime final : public DeviceRuntime {
 public:
  int current_device() override {
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    return device;
  }
  void set_device(int device) override { check(cudaSetDevice(device), "cudaSetDevice"); }
  void allow_during_graph_capture() override {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    check(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
  }

  // Of the greatest priority: where training fills the device, a kernel of a few threads would else wait for its end, and the
  // copies behind it, too. Priorities mean nothing to the engine that copies.
  Stream create_stream() override {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest), "cudaStreamCreateWithPriority");
    return stream;
  }
  void destroy_stream(Stream stream) override { check(cudaStreamDestroy(stream_of(stream)), "cudaStreamDestroy"); }
  void synchronize_stream(Stream stream) override { check(cudaStreamSynchronize(stream_of(stream)), "cudaStreamSynchronize"); }
  Event create_event() override {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreateWithFlags");
    return event;
  }
  void destroy_event(Event event) override { check(cudaEventDestroy(event_of(event)), "cudaEventDestroy"); }
  void record(Event event, Stream stream) override {
    check(cudaEventRecord(event_of(event), stream_of(stream)), "cudaEventRecord");
  }
  void wait(Stream stream, Event event) override {
    check(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "cudaStreamWaitEvent");
  }
  bool done(Event event) override {
    const cudaError_t status = cudaEventQuery(event_of(event));
    if (status == cudaErrorNotReady) return false;
    check(status, "cudaEventQuery");
    return true;
  }
  void synchronize_event(Event event) override { check(cudaEventSynchronize(event_of(event)), "cudaEventSynchronize"); }

  void* allocate(std::int64_t bytes) override {
    void* memory = nullptr;
    check(cudaMalloc(&memory, static_cast<std::size_t>(bytes)), "cudaMalloc");
    return memory;
  }
  void free(void* memory) override { check(cudaFree(memory), "cudaFree"); }
  void* allocate_pinned(std::int64_t bytes) override {
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, static_cast<std::size_t>(bytes), cudaHostAllocPortable), "cudaHostAlloc");
    return memory;
  }
  void free_pinned(void* memory) override { check(cudaFreeHost(memory), "cudaFreeHost"); }
  void pin(void* memory, std::int64_t bytes) override {
    check(cudaHostRegister(memory, static_cast<std::size_t>(bytes), cudaHostRegisterPortable), "cudaHostRegister");
  }
  void unpin(void* memory) override { check(cudaHostUnregister(memory), "cudaHostUnregister"); }

  void copy_to_host(void* to, const void* from, std::int64_t bytes, Stream stream) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToHost, stream_of(stream)),
          "cudaMemcpyAsync");
  }
  void copy(void* to, const void* from, std::int64_t bytes, Stream stream) override {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream_of(stream)),
          "cudaMemcpyAsync");
  }
  void gather(const GatherParams& params, Stream stream) override {
    if (params.count == 0) return;
    gather_kernel<<<static_cast<unsigned>(params.count), cuda::gather_threads, 0, stream_of(stream)>>>(params);
    check(cudaGetLastError(), "gather kernel");
  }
  void breathe(Stream stream) override {
    nothing_kernel<<<1, 1, 0, stream_of(stream)>>>();
    check(cudaGetLastError(), "nothing kernel");
  }
};

}  // namespace

DeviceRuntime& cuda_runtime() {
  static CudaRuntime runtime;
  return runtime;
}

}  // namespace hetsp::staging
