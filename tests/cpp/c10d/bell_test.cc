#include "c10d/bell.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "support/check.h"

using namespace hetsp::routed;

namespace {

using Clock = Bell::Clock;
constexpr auto far = std::chrono::seconds(60);

}  // namespace

// Each of several ringers waits for its turn to come round, so one ring that gets lost stops all of them.
TEST(no_ring_is_lost_between_many_ringers_and_one_sleeper) {
  constexpr int ringers = 3, rounds = 4000;
  Bell bell;
  std::atomic<int> posted{0}, taken{0};
  std::vector<std::thread> threads;
  for (int ringer = 0; ringer < ringers; ++ringer) {
    threads.emplace_back([&] {
      for (int round = 0; round < rounds; ++round) {
        const int mine = posted.fetch_add(1) + 1;
        bell.ring();
        while (taken.load() < mine) std::this_thread::yield();
      }
    });
  }
  const auto begun = Clock::now();
  while (taken < ringers * rounds) {
    for (std::uint32_t armed = bell.arm(); posted == taken; armed = bell.arm()) bell.wait(armed, Clock::now() + far);
    bell.disarm();
    taken = posted.load();
  }
  for (auto& thread : threads) thread.join();
  CHECK(Clock::now() - begun < far);  // of one lost ring
}

TEST(a_ring_before_the_wait_ends_it) {
  Bell bell;
  const auto begun = Clock::now();
  for (int round = 0; round < 100; ++round) {
    const auto armed = bell.arm();
    bell.ring();
    bell.wait(armed, begun + far);
    bell.disarm();
  }
  CHECK(Clock::now() < begun + far);
}

TEST(a_wait_ends_when_its_time_has_come_not_before) {
  Bell bell;
  const auto until = Clock::now() + std::chrono::milliseconds(30);
  while (Clock::now() < until) bell.wait(bell.arm(), until);  // may return early, for no reason
  bell.wait(bell.arm(), until);
  bell.wait(bell.arm(), Clock::time_point());  // long over
  CHECK(Clock::now() >= until);
}

// Between its two steps a ringer may die, or be stopped for long.
TEST(a_ringer_that_stops_half_way_takes_no_later_ring_with_it) {
  const auto word = std::make_shared<Bell::Word>(0);
  Bell bell(word);
  const auto begun = Clock::now();
  for (int round = 0; round < 200; ++round) {
    std::atomic<bool> done{false};
    std::thread other([&] {
      word->fetch_add(2);  // counted, and then nothing
      done = true;
      bell.ring();
    });
    for (std::uint32_t armed = bell.arm(); !done; armed = bell.arm()) bell.wait(armed, begun + far);
    bell.disarm();
    other.join();
  }
  CHECK(Clock::now() < begun + far);
}

TEST(nobody_asleep_nothing_changes) {
  const auto word = std::make_shared<Bell::Word>(0);
  Bell bell(word);
  bell.ring();
  CHECK_EQ(word->load(), 0u);
  CHECK_EQ(bell.arm() % 2, 1u);
  bell.ring();
  CHECK_EQ(word->load() % 2, 1u);  // until the owner says otherwise
  bell.disarm();
  CHECK_EQ(word->load() % 2, 0u);
}

TEST_MAIN()
