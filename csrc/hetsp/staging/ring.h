// Memory that data passes through on its way to or from a device or a disk: a fixed number of equal slots.
//
// All of it is mapped, advised to huge pages and touched once, here: first touch costs ten to forty times a copy, and a copy
// engine that meets fresh pages would pay it inside a training step. Slots are aligned to a page, as O_DIRECT wants, and
// are kept out of forked children: a child that shared them would make the parent's next write copy each page.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

namespace hetsp::staging {

class Ring {
 public:
  static constexpr std::int64_t kAlignment = 4096;  // bytes; of O_DIRECT on every disk but a few odd ones

  // bytes >= slot_bytes; slot_bytes a positive multiple of kAlignment; what is left of bytes / slot_bytes is not mapped.
  // Throws InvalidArgument for other values and std::bad_alloc where the memory is not to be had.
  Ring(std::int64_t bytes, std::int64_t slot_bytes);
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  [[nodiscard]] int slots() const { return slots_; }
  [[nodiscard]] std::int64_t slot_bytes() const { return slot_bytes_; }
  [[nodiscard]] std::int64_t bytes() const { return slots_ * slot_bytes_; }
  [[nodiscard]] char* slot(int index) const { return memory_ + index * slot_bytes_; }

  struct Acquired {
    int slot;
    double waited;  // seconds in which the ring was full
  };
  // A free slot, the one free for longest first; waits while there is none. Nothing where `stopped` says true, which is asked
  // before each wait and whenever wake() is called.
  [[nodiscard]] std::optional<Acquired> acquire(const std::function<bool()>& stopped);
  [[nodiscard]] std::optional<int> try_acquire();  // the same without waiting
  void release(int slot);
  void wake();  // lets those who wait in acquire ask `stopped` again

 private:
  [[nodiscard]] int take();

  std::int64_t slot_bytes_;
  int slots_;
  char* memory_ = nullptr;
  int owner_;  // process that mapped it
  std::mutex mutex_;
  std::condition_variable freed_;
  std::vector<int> free_;  // a queue: [head_, head_ + count_) modulo slots_
  int head_ = 0, count_ = 0;
};

}  // namespace hetsp::staging
