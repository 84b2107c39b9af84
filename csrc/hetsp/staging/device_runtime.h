// The calls of a device's run time that copying from it takes, as a table: the host's logic stands above it (device_copier.h)
// and is tested against a run time of threads with delays and failures; below it are CUDA's calls and nothing else.
//
// Two implementations, chosen by CMake: cuda/ and the stub no_cuda/. Streams and events are opaque (cudaStream_t, cudaEvent_t);
// streams of other libraries in the process are as good, since all use the device's primary context. Each call throws
// device::DeviceError, with the call and the name of CUDA's error.
#pragma once

#include <cstdint>

#include "hetsp/staging/gather.h"

namespace hetsp::staging {

class DeviceRuntime {
 public:
  using Stream = void*;
  using Event = void*;

  DeviceRuntime() = default;
  virtual ~DeviceRuntime() = default;
  DeviceRuntime(const DeviceRuntime&) = delete;
  DeviceRuntime& operator=(const DeviceRuntime&) = delete;

  // Of the calling thread; what follows works on the current device.
  [[nodiscard]] virtual int current_device() = 0;
  virtual void set_device(int device) = 0;
  virtual void allow_during_graph_capture() = 0;  // the calling thread's calls, whatever another thread is recording

  [[nodiscard]] virtual Stream create_stream() = 0;  // waits for no other stream; its kernels go before others'
  virtual void destroy_stream(Stream stream) = 0;
  virtual void synchronize_stream(Stream stream) = 0;
  [[nodiscard]] virtual Event create_event() = 0;
  virtual void destroy_event(Event event) = 0;
  virtual void record(Event event, Stream stream) = 0;
  virtual void wait(Stream stream, Event event) = 0;  // what is queued on the stream later; not the host
  [[nodiscard]] virtual bool done(Event event) = 0;
  virtual void synchronize_event(Event event) = 0;  // the host waits, asleep

  [[nodiscard]] virtual void* allocate(std::int64_t bytes) = 0;  // on the device
  virtual void free(void* memory) = 0;
  [[nodiscard]] virtual void* allocate_pinned(std::int64_t bytes) = 0;  // on the host, for every device
  virtual void free_pinned(void* memory) = 0;
  virtual void pin(void* memory, std::int64_t bytes) = 0;  // memory of the host, for every device
  virtual void unpin(void* memory) = 0;

  virtual void copy_to_host(void* to, const void* from, std::int64_t bytes, Stream stream) = 0;  // to: pinned
  virtual void copy(void* to, const void* from, std::int64_t bytes, Stream stream) = 0;  // both on the stream's device
  virtual void gather(const GatherParams& params, Stream stream) = 0;  // a kernel
  virtual void breathe(Stream stream) = 0;  // a kernel that does nothing
};

// CUDA's. Throws device::DeviceError where this library was built without it; without a device its calls do.
[[nodiscard]] DeviceRuntime& cuda_runtime();

// Makes `device` current on this thread until its end; what was current then is again.
class CurrentDevice {
 public:
  CurrentDevice(DeviceRuntime& runtime, int device) : runtime_(runtime), before_(runtime.current_device()) {
    if (before_ != device) runtime_.set_device(device), changed_ = true;
  }
  ~CurrentDevice() {
    if (!changed_) return;
    try {
      runtime_.set_device(before_);
    } catch (...) {  // a device that was current and is lost: nothing works on it any more
    }
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  DeviceRuntime& runtime_;
  const int before_;
  bool changed_ = false;
};

}  // namespace hetsp::staging
