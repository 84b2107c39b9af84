#include "c10d/device_buffer.h"

#include <exception>
#include <utility>

namespace hetsp::routed {

DeviceBufferPool::~DeviceBufferPool() {
  for (void* const memory : all_) {
    try {
      runtime_.free(memory);
    } catch (const std::exception&) {
      // a lost device has lost its memory too
    }
  }
}

std::shared_ptr<DeviceBuffer> DeviceBufferPool::take() {
  std::unique_ptr<DeviceBuffer> buffer;
  {
    const std::scoped_lock lock(mutex_);
    if (!free_.empty()) {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!buffer) {
    buffer = std::make_unique<DeviceBuffer>(runtime_.allocate(static_cast<std::int64_t>(bytes_)));
    const std::scoped_lock lock(mutex_);
    all_.push_back(buffer->memory());
  }
  return {buffer.release(), [pool = shared_from_this()](DeviceBuffer* done) {
            const std::scoped_lock lock(pool->mutex_);
            pool->free_.emplace_back(done);
          }};
}

void DeviceBufferPool::reserve(std::size_t count) {
  std::vector<std::shared_ptr<DeviceBuffer>> held;
  while (held.size() < count) held.push_back(take());
}

void DeviceBufferPool::abandon() {
  const std::scoped_lock lock(mutex_);
  all_.clear();
}

}  // namespace hetsp::routed
