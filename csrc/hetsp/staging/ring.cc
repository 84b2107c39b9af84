#include "hetsp/staging/ring.h"

#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <limits>
#include <new>

#include "hetsp/base/error.h"

namespace hetsp::staging {

namespace {

constexpr std::uintptr_t kHugePage = std::uintptr_t{2} << 20;

int slots_of(std::int64_t bytes, std::int64_t slot_bytes) {
  require(slot_bytes > 0 && slot_bytes % Ring::kAlignment == 0, "Ring: slot_bytes is ", slot_bytes,
          ", must be a positive multiple of ", Ring::kAlignment);
  require(bytes >= slot_bytes, "Ring: bytes is ", bytes, ", must hold at least one slot of ", slot_bytes);
  require(bytes / slot_bytes <= std::numeric_limits<int>::max(), "Ring: ", bytes, " bytes in slots of ", slot_bytes,
          " are too many slots");
  return static_cast<int>(bytes / slot_bytes);
}

void* map(std::size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

// Maps `bytes` at a multiple of a huge page: maps one huge page more and gives the ends back.
char* map_aligned(std::size_t bytes) {
  auto* const raw = static_cast<char*>(map(bytes + kHugePage));
  const std::size_t before = (kHugePage - reinterpret_cast<std::uintptr_t>(raw) % kHugePage) % kHugePage;
  if (before > 0) ::munmap(raw, before);
  ::munmap(raw + before + bytes, kHugePage - before);
  return raw + before;
}

}  // namespace

Ring::Ring(std::int64_t bytes, std::int64_t slot_bytes)
    : slot_bytes_(slot_bytes), slots_(slots_of(bytes, slot_bytes)), owner_(::getpid()) {
  for (int slot = 0; slot < slots_; ++slot) free_.push_back(slot);
  count_ = slots_;
  const auto size = static_cast<std::size_t>(this->bytes());
  memory_ = map_aligned(size);
  ::madvise(memory_, size, MADV_HUGEPAGE);  // advice: a kernel without huge pages does without
  ::madvise(memory_, size, MADV_DONTFORK);
  std::memset(memory_, 0, size);
}

Ring::~Ring() {
  // In a forked child the range was never mapped, and by now something else may be there.
  if (::getpid() == owner_) ::munmap(memory_, static_cast<std::size_t>(bytes()));
}

int Ring::take() {
  const int slot = free_[static_cast<std::size_t>(head_)];
  head_ = (head_ + 1) % slots_;
  --count_;
  return slot;
}

std::optional<Ring::Acquired> Ring::acquire(const std::function<bool()>& stopped) {
  std::unique_lock lock(mutex_);
  if (stopped()) return std::nullopt;
  if (count_ > 0) return Acquired{take(), 0.0};
  const auto begin = std::chrono::steady_clock::now();
  bool stop = false;
  freed_.wait(lock, [&] {
    stop = stopped();
    return stop || count_ > 0;
  });
  if (stop) return std::nullopt;
  return Acquired{take(), std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count()};
}

std::optional<int> Ring::try_acquire() {
  const std::lock_guard lock(mutex_);
  if (count_ == 0) return std::nullopt;
  return take();
}

void Ring::release(int slot) {
  require(0 <= slot && slot < slots_, "Ring: slot ", slot, " released, there are ", slots_);
  {
    const std::lock_guard lock(mutex_);
    invariant(count_ < slots_, "slot ", slot, " released to a ring that is all free");
    free_[static_cast<std::size_t>((head_ + count_) % slots_)] = slot;
    ++count_;
  }
  freed_.notify_one();
}

void Ring::wake() {
  const std::lock_guard lock(mutex_);
  freed_.notify_all();
}

}  // namespace hetsp::staging
