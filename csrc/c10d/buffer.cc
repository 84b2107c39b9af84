#include "c10d/buffer.h"

#include <utility>

namespace hetsp::routed {

std::shared_ptr<Buffer> BufferPool::take() {
  std::unique_ptr<Buffer> buffer;
  {
    const std::scoped_lock lock(mutex_);
    if (!free_.empty()) {
      buffer = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!buffer) buffer = std::make_unique<Buffer>(payload_);
  return {buffer.release(), [pool = shared_from_this()](Buffer* done) { pool->give_back(std::unique_ptr<Buffer>(done)); }};
}

void BufferPool::give_back(std::unique_ptr<Buffer> buffer) {
  const std::scoped_lock lock(mutex_);
  if (free_.size() < kept_) free_.push_back(std::move(buffer));
}

}  // namespace hetsp::routed
