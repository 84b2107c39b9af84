// Cuts a piece of device memory into arrays. C++17.
#pragma once

#include <cstdint>

#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

// Parts of a piece of memory, one after another, each on a boundary of 256 bytes. Without memory it only counts.
class Carving {
 public:
  explicit Carving(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class Item>
  Item* take(std::int64_t count) {
    Item* const part = memory_ == nullptr ? nullptr : reinterpret_cast<Item*>(memory_ + bytes_);
    bytes_ += ceil_div<std::int64_t>(count * static_cast<std::int64_t>(sizeof(Item)), 256) * 256;
    return part;
  }
  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  std::int64_t bytes_ = 0;
};

}  // namespace hetsp::attention::cuda
