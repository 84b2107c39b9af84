// Memory of a device for payloads on their way in and out.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "hetsp/staging/device_runtime.h"

namespace hetsp::routed {

class DeviceBuffer {
 public:
  explicit DeviceBuffer(void* memory) : memory_(static_cast<std::byte*>(memory)) {}
  [[nodiscard]] std::byte* memory() const { return memory_; }

 private:
  std::byte* memory_;
};

// Buffers of one size. Made on the thread whose current device is theirs, given back from any thread; one that is given back is
// used by no stream any more. How many there are is bounded by the windows of the links. Memory is taken early and none is
// freed before the pool: both may make the whole device wait, and its kernels may be waiting for other ranks.
class DeviceBufferPool : public std::enable_shared_from_this<DeviceBufferPool> {
 public:
  DeviceBufferPool(staging::DeviceRuntime& runtime, std::size_t bytes) : runtime_(runtime), bytes_(bytes) {}
  ~DeviceBufferPool();

  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  std::shared_ptr<DeviceBuffer> take();
  void reserve(std::size_t count);
  void abandon();  // leaves the memory to the end of the process: work that never ends may still use it

 private:
  staging::DeviceRuntime& runtime_;
  const std::size_t bytes_;
  std::mutex mutex_;
  std::vector<void*> all_;
  std::vector<std::unique_ptr<DeviceBuffer>> free_;
};

}  // namespace hetsp::routed
