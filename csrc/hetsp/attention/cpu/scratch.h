// Aligned scratch memory of one worker, carved into named arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

// Number of elements rounded up to a vector of 64 bytes of the narrowest accumulate type.
constexpr std::int64_t padded(std::int64_t count) { return ceil_div<std::int64_t>(count, 16) * 16; }

// Bytes rounded up so that the next array of a carved block starts on a cache line.
constexpr std::size_t carved(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

class Scratch {
 public:
  explicit Scratch(std::size_t bytes)
      : data_(static_cast<std::byte*>(::operator new(bytes, kAlignment))), end_(data_.get() + bytes), next_(data_.get()) {}

  // The next `bytes`, uninitialised; the caller has asked for the sum of carved() in the constructor.
  void* take(std::size_t bytes) {
    std::byte* taken = next_;
    next_ += carved(bytes);
    invariant(next_ <= end_, "scratch is short by ", next_ - end_, " bytes");
    return taken;
  }
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::byte* end_;
  std::byte* next_;
};

}  // namespace hetsp::attention::cpu
