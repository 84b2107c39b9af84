#include "c10d/bell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <ctime>

#include <algorithm>
#include <limits>

namespace hetsp::routed {

namespace {

static_assert(sizeof(Bell::Word) == sizeof(std::uint32_t) && Bell::Word::is_always_lock_free,
              "the kernel waits on the word itself");

constexpr std::uint32_t asleep = 1, one_ring = 2;

// Not private to a process. C++20's own wait() is, in libstdc++.
long futex(const Bell::Word* word, int operation, std::uint32_t value, const timespec* until) {
  return syscall(SYS_futex, word, operation, value, until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void Bell::ring() const {
  if ((word_->load(std::memory_order_seq_cst) & asleep) == 0) return;
  word_->fetch_add(one_ring, std::memory_order_seq_cst);
  futex(word_.get(), FUTEX_WAKE, 1, nullptr);
}

std::uint32_t Bell::arm() const { return word_->fetch_or(asleep, std::memory_order_seq_cst) | asleep; }

void Bell::wait(std::uint32_t armed, Clock::time_point until) const {
  const auto time = std::max(until.time_since_epoch(), Clock::duration(0));
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(time);
  timespec limit{};
  limit.tv_sec = static_cast<time_t>(seconds.count());
  limit.tv_nsec = static_cast<long>(std::chrono::duration_cast<std::chrono::nanoseconds>(time - seconds).count());
  futex(word_.get(), FUTEX_WAIT_BITSET, armed, &limit);
}

void Bell::disarm() const { word_->fetch_and(~asleep, std::memory_order_seq_cst); }

}  // namespace hetsp::routed
