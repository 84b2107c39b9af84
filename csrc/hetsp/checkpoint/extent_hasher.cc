#include "hetsp/checkpoint/extent_hasher.h"

#include <algorithm>

#include "hetsp/base/error.h"

namespace hetsp::checkpoint {

void ExtentHasher::update(const char* data, std::int64_t bytes) {
  while (bytes > 0) {
    const std::int64_t part = std::min(bytes, end_ - offset_);
    invariant(part > 0, "bytes behind the last extent, which ends at ", end_);
    hasher_.update(data, static_cast<std::size_t>(part));
    data += part, bytes -= part, offset_ += part;
    if (offset_ < end_) continue;
    (next_ == 0 ? header_hash_ : extents_[next_ - 1].hash) = hasher_.hex();
    hasher_.reset();
    if (next_ < extents_.size()) end_ = extents_[next_++].end;
  }
}

}  // namespace hetsp::checkpoint
