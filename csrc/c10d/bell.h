// What one thread sleeps at, and any thread of any process that shares the memory rings.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

namespace hetsp::routed {

// An event count over one word: its lowest bit says that the owner sleeps or is about to, the others count rings. The owner
// arms the bell, looks whether there is anything to do, and waits only then; others first publish what there is to do, then
// ring. Each side writes before it reads, in one total order, so one of them sees the other. Ringing costs a read while the
// owner is awake, and a system call from then on until it is awake again.
//
// The owner alone says that it is awake: after a ringer that dies or is stopped half-way the next one still wakes it.
class Bell {
 public:
  using Word = std::atomic<std::uint32_t>;
  using Clock = std::chrono::steady_clock;

  explicit Bell(std::shared_ptr<Word> word = std::make_shared<Word>(0)) : word_(std::move(word)) {}

  void ring() const;

  // For the owner, one thread.
  std::uint32_t arm() const;
  void wait(std::uint32_t armed, Clock::time_point until) const;  // until rung after arm(), until then, or for no reason
  void disarm() const;

 private:
  std::shared_ptr<Word> word_;
};

}  // namespace hetsp::routed
