// Aligned scratch memory of one worker, carved into named arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

// Number of elements rounded up so that the next array of a carved block starts on a cache line, whatever the type.
constexpr std::int64_t padded(std::int64_t count) { return ceil_div<std::int64_t>(count, 16) * 16; }

template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t count)
      : data_(static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), kAlignment))),
        end_(data_.get() + count),
        next_(data_.get()) {}

  // The next `count` elements, uninitialised; the caller has asked for enough in the constructor.
  T* take(std::int64_t count) {
    T* taken = next_;
    next_ += padded(count);
    invariant(next_ <= end_, "scratch is short by ", next_ - end_, " elements");
    return taken;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(T* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<T, Free> data_;
  T* end_;
  T* next_;
};

}  // namespace hetsp::attention::cpu
