#include "hetsp/comm/ack_clock.h"

#include "support/check.h"

using namespace hetsp::comm;

namespace {

constexpr Time kMs = 1'000'000;
const AckClock::Options kOptions{.rate = 0, .floor = 50 * kMs, .first = 100 * kMs};

// A wire of `rate` bytes/s that keeps `window` frames of `bytes` in flight, each answered `delay` after it is through.
Time run_wire(AckClock& clock, double rate, std::size_t bytes, int window, Time delay, int frames, Time start = 0) {
  std::vector<AckClock::Mark> marks;
  std::vector<Time> due;
  Time free = start, now = start;
  const Time wire = static_cast<Time>(static_cast<double>(bytes) / rate * 1e9);
  std::size_t answered = 0;
  while (answered < static_cast<std::size_t>(frames)) {
    while (marks.size() < static_cast<std::size_t>(frames) && marks.size() - answered < static_cast<std::size_t>(window)) {
      marks.push_back(
          clock.sent(now, marks.size() == answered, marks.size() - answered + 1 == static_cast<std::size_t>(window)));
      free = std::max(free, now) + wire;
      due.push_back(free + delay);
    }
    now = due[answered];
    clock.acknowledged(marks[answered++], bytes, now);
  }
  return now;
}

}  // namespace

TEST(the_rate_of_a_full_wire_is_found) {
  for (const double rate : {1e6, 50e6, 1e9}) {
    AckClock clock(kOptions);
    run_wire(clock, rate, 256 * 1024, 4, 1000, 60);
    CHECK_NEAR(clock.rate() / rate, 1.0, 0.02);
  }
}

TEST(a_wire_that_becomes_slow_or_fast_is_followed) {
  AckClock clock(kOptions);
  Time now = run_wire(clock, 50e6, 256 * 1024, 3, 0, 40);
  now = run_wire(clock, 6.25e6, 256 * 1024, 3, 0, 30, now);
  CHECK_NEAR(clock.rate() / 6.25e6, 1.0, 0.05);
  run_wire(clock, 50e6, 256 * 1024, 3, 0, 30, now);
  CHECK_NEAR(clock.rate() / 50e6, 1.0, 0.05);
}

TEST(small_frames_that_leave_the_wire_idle_do_not_make_it_slow) {
  AckClock clock(kOptions);
  Time now = run_wire(clock, 50e6, 256 * 1024, 3, 0, 40);
  for (int i = 0; i < 100; ++i) {
    const AckClock::Mark mark = clock.sent(now, true, false);
    now += kMs;
    clock.acknowledged(mark, 64, now);
    now += 20 * kMs;
  }
  CHECK_NEAR(clock.rate() / 50e6, 1.0, 0.02);
}

TEST(patience_follows_ack_times_and_has_a_floor) {
  AckClock clock(kOptions);
  CHECK_EQ(clock.patience(), 100 * kMs);  // nothing measured
  CHECK_EQ(clock.verdict(), 180 * kMs);
  Time now = 0;
  for (int i = 0; i < 50; ++i) clock.acknowledged(clock.sent(now, true, true), 1000, now + 5 * kMs), now += 5 * kMs;
  CHECK_EQ(clock.patience(), 50 * kMs);
  CHECK_EQ(clock.verdict(), 100 * kMs);
  for (int i = 0; i < 50; ++i) clock.acknowledged(clock.sent(now, true, true), 1000, now + 300 * kMs), now += 300 * kMs;
  CHECK(clock.patience() >= 295 * kMs);
  CHECK(clock.verdict() >= clock.patience() + clock.patience() / 4);  // a slow wire is no dead one
  CHECK_NEAR(static_cast<double>(clock.smoothed()), 300e6, 5e6);
  for (int i = 0; i < 50; ++i) clock.acknowledged(clock.sent(now, true, true), 1000, now + 5000 * kMs), now += 5000 * kMs;
  CHECK_EQ(clock.patience(), 1000 * kMs);
}

TEST(misjudging_makes_patient_for_a_while) {
  AckClock clock(kOptions);
  Time now = 0;
  const auto ack = [&] { clock.acknowledged(clock.sent(now, true, true), 1000, now + kMs), now += kMs; };
  for (int i = 0; i < 50; ++i) ack();
  clock.misjudged();
  CHECK_EQ(clock.patience(), 90 * kMs);
  CHECK_EQ(clock.verdict(), 180 * kMs);
  clock.misjudged();
  CHECK_EQ(clock.verdict(), 180 * kMs);  // and no longer
  now += 11'000 * kMs;
  ack();
  CHECK_EQ(clock.patience(), 50 * kMs);
}

TEST(the_shortest_time_is_of_the_last_seconds_and_of_this_connection) {
  AckClock clock(kOptions);
  Time now = 0;
  const auto ack = [&](Time took) { clock.acknowledged(clock.sent(now, true, true), 1000, now + took), now += took; };
  CHECK_EQ(clock.shortest(), 0);
  ack(kMs);
  ack(7 * kMs);
  CHECK_EQ(clock.shortest(), kMs);
  now += 6000 * kMs;
  ack(3 * kMs);
  CHECK_EQ(clock.shortest(), kMs);
  now += 6000 * kMs;
  ack(4 * kMs);
  CHECK_EQ(clock.shortest(), 3 * kMs);
  clock.restart();
  CHECK_EQ(clock.shortest(), 0);
}

TEST(how_long_acks_wait_is_seen_though_the_clocks_differ) {
  for (const std::uint64_t ahead :
       {std::uint64_t{0}, std::uint64_t{3'600'000 * kMs}, ~std::uint64_t{5'000 * kMs}}) {  // the other clock
    check::context() = "ahead " + std::to_string(ahead);
    AckClock clock(kOptions);
    Time now = 10 * kMs;
    const auto back = [&](Time took) { clock.came_back(static_cast<std::uint64_t>(now) + ahead, now + took), now += 20 * kMs; };
    CHECK_EQ(clock.back(), 0);
    back(2 * kMs);
    CHECK_EQ(clock.back(), 0);  // the shortest way
    for (int i = 0; i < 40; ++i) back(12 * kMs);
    CHECK_NEAR(static_cast<double>(clock.back()), 10e6, 0.1e6);
    back(kMs);  // shorter still
    for (int i = 0; i < 40; ++i) back(12 * kMs);
    CHECK_NEAR(static_cast<double>(clock.back()), 11e6, 0.1e6);
    for (int i = 0; i < 40; ++i) back(3000 * kMs);
    CHECK_NEAR(static_cast<double>(clock.back()), 50e6, 0.1e6);  // a stall, which no window should fill
    clock.restart();
    CHECK_EQ(clock.back(), 0);
  }
}

TEST(an_ack_that_does_not_say_when_it_left_tells_nothing_of_its_way) {
  AckClock clock(kOptions);
  clock.came_back(0, 10 * kMs);
  clock.came_back(0, 500 * kMs);
  CHECK_EQ(clock.back(), 0);
}

TEST_MAIN()
