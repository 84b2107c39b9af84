#include "hetsp/staging/ring.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using staging::Ring;

namespace {

const std::function<bool()> kNever = [] { return false; };

}  // namespace

TEST(bad_sizes_are_named) {
  CHECK_THROWS(InvalidArgument, "slot_bytes is 0, must be a positive multiple of 4096", Ring(4096, 0));
  CHECK_THROWS(InvalidArgument, "slot_bytes is 5000", Ring(5000, 5000));
  CHECK_THROWS(InvalidArgument, "bytes is 4096, must hold at least one slot of 8192", Ring(4096, 8192));
  CHECK_THROWS(InvalidArgument, "slot_bytes is -4096", Ring(4096, -4096));
  CHECK_THROWS(std::bad_alloc, "", Ring(std::int64_t{1} << 52, std::int64_t{1} << 40));
}

TEST(slots_are_aligned_zeroed_and_apart) {
  Ring ring(5 * 8192 + 100, 8192);
  CHECK_EQ(ring.slots(), 5);
  CHECK_EQ(ring.bytes(), 5 * 8192);
  for (int i = 0; i < 5; ++i) {
    CHECK_EQ(reinterpret_cast<std::uintptr_t>(ring.slot(i)) % Ring::kAlignment, 0U);
    for (int b = 0; b < 8192; ++b) CHECK(ring.slot(i)[b] == 0);
    std::memset(ring.slot(i), i + 1, 8192);
  }
  for (int i = 0; i < 5; ++i) CHECK(ring.slot(i)[0] == i + 1 && ring.slot(i)[8191] == i + 1);
}

TEST(slots_come_back_in_the_order_of_release) {
  Ring ring(3 * 4096, 4096);
  for (int i = 0; i < 3; ++i) CHECK_EQ(ring.acquire(kNever)->slot, i);
  ring.release(1), ring.release(2), ring.release(0);
  CHECK_EQ(ring.acquire(kNever)->slot, 1);
  CHECK_EQ(ring.acquire(kNever)->slot, 2);
  CHECK_EQ(ring.acquire(kNever)->slot, 0);
  CHECK_THROWS(InvalidArgument, "slot 3 released, there are 3", (ring.release(3), 0));
  for (int i = 0; i < 3; ++i) ring.release(i);
  CHECK_THROWS(BrokenInvariant, "all free", (ring.release(0), 0));
}

TEST(a_full_ring_makes_wait_and_says_how_long) {
  Ring ring(4096, 4096);
  CHECK_EQ(ring.acquire(kNever)->waited, 0.0);
  std::atomic<bool> waiting{false};
  std::thread other([&] {
    while (!waiting) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ring.release(0);
  });
  waiting = true;
  const auto again = ring.acquire(kNever);
  other.join();
  CHECK(again->waited > 0);
}

TEST(a_stopped_wait_ends_without_a_slot) {
  Ring ring(4096, 4096);
  CHECK(!ring.acquire([] { return true; }).has_value());  // even where one is free
  CHECK_EQ(ring.acquire(kNever)->slot, 0);
  std::atomic<bool> stop{false};
  std::thread waiter([&] { CHECK(!ring.acquire([&] { return stop.load(); }).has_value()); });
  stop = true;
  ring.wake();
  waiter.join();
  ring.release(0);
  CHECK(ring.acquire(kNever).has_value());
}

TEST(what_is_tried_does_not_wait) {
  Ring ring(2 * 4096, 4096);
  CHECK_EQ(ring.try_acquire().value_or(-1), 0);
  CHECK_EQ(ring.acquire(kNever)->slot, 1);
  CHECK(!ring.try_acquire().has_value());
  ring.release(1);
  CHECK_EQ(ring.try_acquire().value_or(-1), 1);
}

TEST(a_slot_has_one_holder_at_a_time) {
  Ring ring(4 * 4096, 4096);
  std::vector<std::atomic<int>> holders(4);
  std::vector<std::thread> threads;
  std::atomic<bool> twice{false};
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 3000; ++i) {
        const int slot = ring.acquire(kNever)->slot;
        if (holders[static_cast<std::size_t>(slot)].fetch_add(1) != 0) twice = true;
        holders[static_cast<std::size_t>(slot)].fetch_sub(1);
        ring.release(slot);
      }
    });
  for (auto& thread : threads) thread.join();
  CHECK(!twice);
}

TEST(a_forked_child_neither_sees_nor_unmaps_it) {
  auto* ring = new Ring(4096, 4096);
  std::memset(ring->slot(0), 7, 4096);
  const pid_t child = ::fork();
  if (child == 0) {
    delete ring;  // must not touch whatever the child has there
    ::_exit(0);
  }
  int status = 0;
  CHECK_EQ(::waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(ring->slot(0)[4095] == 7);
  delete ring;
}

TEST_MAIN()
