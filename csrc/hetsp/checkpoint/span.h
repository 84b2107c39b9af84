// A stretch of memory that is saved.
#pragma once

#include <cstdint>

namespace hetsp::checkpoint {

constexpr int kHost = -1;

struct Span {
  const void* data = nullptr;
  std::int64_t bytes = 0;
  std::int64_t group = 0;  // spans are released to their writer by group
  int device = kHost;      // else the number of the device whose memory it is
  bool eager = false;      // of a device: as it is when the save begins, for it may change at any moment
};

}  // namespace hetsp::checkpoint
