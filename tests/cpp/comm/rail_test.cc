// Long because each state of a rail, and each way into it, has a test, and all of them share the frames of the other end.
#include "hetsp/comm/rail.h"

#include <deque>
#include <map>
#include <random>
#include <set>

#include "support/check.h"

using namespace hetsp::comm;

namespace {

constexpr Time kMs = 1'000'000;
constexpr std::size_t kChunk = 256 * 1024;

Header ack(std::uint64_t upto, std::uint64_t above = 0, std::uint16_t generation = 0) {
  return {.kind = Kind::ack, .generation = generation, .value = upto, .tag = static_cast<std::int64_t>(above)};
}

Header frame(std::uint32_t hop, std::uint16_t generation = 0, Kind kind = Kind::chunk) {
  return {.kind = kind, .generation = generation, .hop = hop};
}

// The next frame of the rail itself; its kind is `nothing` if none is due.
constexpr Kind kNothing = Kind::goodbye;
Header own(Rail& rail) {
  Header header;
  std::vector<std::byte> payload;
  if (!rail.take_own(header, payload)) header.kind = kNothing;
  return header;
}

// Lets the time pass as an engine would: poll at every deadline.
void wait(Rail& rail, Time& now, Time until) {
  while (rail.deadline() < until) {
    now = std::max(now, rail.deadline());
    rail.poll(now);
  }
  rail.poll(now = until);
}

// A rail with 20 acknowledged frames of 5 ms behind it.
Rail seasoned(Time& now, const RailOptions& options = {}) {
  Rail rail(options, true, now);
  for (std::uint64_t i = 1; i <= 20; ++i) {
    const std::uint32_t hop = rail.put(i, kChunk, now);
    rail.arrive(ack(hop), {}, now += 5 * kMs);
    rail.poll(now);
  }
  rail.take_acknowledged();
  return rail;
}

}  // namespace

TEST(frames_are_numbered_and_their_acks_name_them) {
  Rail rail({}, true, 0);
  for (std::uint64_t i = 1; i <= 5; ++i) CHECK_EQ(rail.put(100 + i, 10, 0), i);
  CHECK_EQ(rail.in_flight(), 50U);
  CHECK(rail.arrive(ack(2), {}, kMs) == Rail::Arrived::done);
  CHECK(rail.take_acknowledged() == (std::vector<std::uint64_t>{101, 102}));
  rail.arrive(ack(2, 0b10), {}, kMs);  // 4 came, 3 did not
  CHECK(rail.take_acknowledged() == (std::vector<std::uint64_t>{104}));
  rail.arrive(ack(1), {}, kMs);  // old news
  rail.arrive(ack(5), {}, kMs);
  CHECK(rail.take_acknowledged() == (std::vector<std::uint64_t>{103, 105}));
  CHECK_EQ(rail.in_flight(), 0U);
  CHECK(rail.take_returned().empty());
}

TEST(small_frames_are_acknowledged_together_a_little_later) {
  Rail rail({}, true, 0);
  const auto small = [&](std::uint32_t hop, std::size_t bytes = 0) {
    rail.arrive(frame(hop, 0, Kind::offer), std::vector<std::byte>(bytes), 0);
  };
  small(1);
  small(2, 8);
  CHECK(rail.owes_ack());
  CHECK(own(rail).kind == kNothing);
  CHECK_EQ(rail.deadline(), 2 * kMs);
  rail.poll(2 * kMs - 1);
  CHECK(own(rail).kind == kNothing);
  rail.poll(2 * kMs);
  CHECK_EQ(own(rail).value, 2U);
  CHECK(own(rail).kind == kNothing && !rail.owes_ack());
  CHECK(rail.deadline() > 2 * kMs);

  for (std::uint32_t hop = 3; hop < 18; ++hop) small(hop);
  CHECK(own(rail).kind == kNothing);
  small(18);  // the 16th
  CHECK_EQ(own(rail).value, 18U);
  small(19, 32768);
  CHECK(own(rail).kind == kNothing);
  small(20, 32768);  // 64 KB
  CHECK_EQ(own(rail).value, 20U);
  for (const Kind kind : {Kind::chunk, Kind::probe}) {
    small(21 + 2 * (kind == Kind::probe));
    rail.arrive(frame(22 + 2 * (kind == Kind::probe), 0, kind), {}, 0);
    CHECK_EQ(own(rail).value, 22U + 2 * (kind == Kind::probe));
  }
  small(25);
  rail.connected(1, 3 * kMs);  // what the old connection brought is of no interest
  CHECK(own(rail).kind == Kind::probe && !rail.owes_ack());
}

TEST(acks_of_what_was_never_sent_are_ignored) {
  Rail rail({}, true, 0);
  rail.put(7, 10, 0);
  for (const std::uint64_t value : {2ULL, 3ULL, 0x7fffffffULL, 0x100000001ULL, ~0ULL}) rail.arrive(ack(value, ~0ULL), {}, kMs);
  CHECK(rail.take_acknowledged().empty());
  rail.arrive(ack(1, ~0ULL), {}, kMs);
  CHECK(rail.take_acknowledged() == (std::vector<std::uint64_t>{7}));
}

TEST(what_arrives_is_acknowledged_once_and_delivered_once) {
  Rail rail({}, true, 0);
  CHECK(own(rail).kind == kNothing);
  CHECK(rail.arrive(frame(1), {}, 0) == Rail::Arrived::deliver);
  CHECK(rail.arrive(frame(1), {}, 0) == Rail::Arrived::done);
  CHECK(rail.arrive(frame(2, 0, Kind::probe), {}, 0) == Rail::Arrived::done);
  const Header first = own(rail);
  CHECK(first.kind == Kind::ack && first.value == 2 && first.tag == 0 && first.hop == 0);
  CHECK(own(rail).kind == kNothing);
  CHECK(rail.arrive(frame(5), {}, 0) == Rail::Arrived::deliver);
  CHECK(rail.arrive(frame(5), {}, 0) == Rail::Arrived::done);
  const Header gap = own(rail);
  CHECK(gap.value == 2 && gap.tag == 0b100);
  CHECK(rail.arrive(frame(3), {}, 0) == Rail::Arrived::deliver);
  CHECK(rail.arrive(frame(4), {}, 0) == Rail::Arrived::deliver);
  const Header closed = own(rail);
  CHECK(closed.value == 5 && closed.tag == 0);
  CHECK(rail.arrive(frame(70), {}, 0) == Rail::Arrived::stale);  // above any gap
  CHECK(rail.arrive(frame(0xffffffff), {}, 0) == Rail::Arrived::done);
  CHECK(rail.arrive(frame(0), {}, 0) == Rail::Arrived::deliver);  // not counted
  CHECK(rail.arrive(frame(6, 1), {}, 0) == Rail::Arrived::stale);  // another generation
}

TEST(silence_is_noticed_after_50_ms_and_judged_before_200) {
  Time now = 0;
  Rail rail = seasoned(now);
  const Time began = now;
  for (std::uint64_t i = 1; i <= 3; ++i) rail.put(i, 1000, now);
  wait(rail, now, began + 49 * kMs);
  CHECK(rail.up() && !rail.suspect() && rail.room() > 0);
  wait(rail, now, began + 55 * kMs);
  CHECK(rail.up() && rail.suspect() && rail.room() == 0);
  wait(rail, now, began + 99 * kMs);
  CHECK(rail.up() && !rail.take_went_down());
  wait(rail, now, began + 101 * kMs);
  CHECK(!rail.up() && rail.take_went_down() && !rail.take_reset());
  CHECK(rail.take_returned() == (std::vector<std::uint64_t>{1, 2, 3}));
  CHECK_EQ(rail.in_flight(), 0U);
  CHECK_NEAR(rail.statistics().silence_noticed, 0.1, 0.001);
  CHECK_EQ(rail.statistics().times_down, 1U);
}

TEST(silence_counts_from_the_last_progress) {
  Time now = 0;
  Rail rail = seasoned(now);
  for (std::uint64_t i = 1; i <= 20; ++i) rail.put(i, kChunk, now);
  const std::uint32_t first = 21;
  for (std::uint32_t i = 0; i < 20; ++i) {  // 40 ms a chunk: the last has waited for 800 ms
    wait(rail, now, now + 40 * kMs);
    CHECK(!rail.suspect());
    rail.arrive(ack(first + i), {}, now);
  }
  CHECK(rail.take_returned().empty());
  CHECK_EQ(rail.take_acknowledged().size(), 20U);
}

TEST(the_first_chunks_of_a_slow_rail_are_awaited) {
  Time now = 0;
  Rail rail({}, true, now);
  rail.put(1, kChunk, now);
  rail.put(2, kChunk, now);
  wait(rail, now, 170 * kMs);  // 12 Mbit/s
  CHECK(rail.up());
  rail.arrive(ack(1), {}, now);
  wait(rail, now, 340 * kMs);
  CHECK(rail.up() && !rail.suspect());
}

TEST(a_late_ack_ends_a_stall_without_a_new_connection) {
  Time now = 0;
  Rail rail = seasoned(now);
  rail.put(1, 1000, now);
  rail.put(2, 1000, now);
  wait(rail, now, now + 210 * kMs);
  CHECK(rail.take_went_down());
  CHECK_EQ(rail.take_returned().size(), 2U);
  rail.arrive(ack(21), {}, now);
  CHECK(rail.up() && rail.take_came_up());
  CHECK(rail.take_acknowledged().empty());  // it went another way already
  const std::uint32_t next = rail.put(3, 1000, now);
  CHECK_EQ(next, 23U);
  rail.arrive(ack(23), {}, now += kMs);
  CHECK(rail.take_acknowledged() == (std::vector<std::uint64_t>{3}));
  wait(rail, now, now + 500 * kMs);
  CHECK(!rail.take_reset());
  rail.put(4, 1000, now);
  wait(rail, now, now + 85 * kMs);
  CHECK(!rail.suspect());  // more patient than before
}

TEST(a_dead_rail_is_connected_afresh_and_asked) {
  Time now = 0;
  Rail rail = seasoned(now);
  rail.put(1, 1000, now);
  wait(rail, now, now + 400 * kMs);
  CHECK(!rail.up() && rail.take_reset() && !rail.take_reset());
  CHECK_EQ(rail.take_returned().size(), 1U);
  CHECK(rail.arrive(ack(21), {}, now) == Rail::Arrived::stale);  // too late
  CHECK(rail.deadline() > now + 1000 * kMs * 3600);                // nothing to do until the wire says so
  now += 5000 * kMs;
  rail.connected(1, now);
  CHECK(!rail.up() && !rail.take_came_up());
  CHECK_EQ(rail.generation(), 1);
  const Header probe = own(rail);
  CHECK(probe.kind == Kind::probe && probe.hop == 1 && probe.generation == 1);
  CHECK(rail.arrive(frame(1), {}, now) == Rail::Arrived::stale);  // of the generation before
  CHECK(rail.arrive(frame(1, 1, Kind::probe), {}, now) == Rail::Arrived::done);
  const Header answer = own(rail);
  CHECK(answer.kind == Kind::ack && answer.generation == 1 && answer.value == 1);
  rail.arrive(ack(1, 0, 1), {}, now);
  CHECK(rail.up() && rail.take_came_up() && !rail.take_came_up());
  CHECK(rail.take_acknowledged().empty());  // a probe is nobody's frame
  CHECK_EQ(rail.put(9, 10, now), 2U);
}

TEST(a_new_connection_that_does_not_answer_is_given_up) {
  Time now = 0;
  Rail rail({}, false, now);  // as rails begin
  CHECK(!rail.up() && rail.room() == 0);
  for (std::uint16_t generation = 1; generation <= 3; ++generation) {
    rail.connected(generation, now);
    CHECK(own(rail).kind == Kind::probe);
    wait(rail, now, now + 200 * kMs);
    CHECK(!rail.up() && rail.take_reset());
  }
  CHECK_EQ(rail.statistics().times_down, 0U);  // it never was up
}

TEST(a_connection_that_the_other_end_made_afresh) {
  Time now = 0;
  Rail rail = seasoned(now);
  rail.put(1, 1000, now);
  rail.connected(1, now);
  CHECK(rail.take_went_down() && !rail.take_reset() && !rail.up());
  CHECK(rail.take_returned() == (std::vector<std::uint64_t>{1}));
  CHECK(own(rail).kind == Kind::probe);
  rail.connected(1, now);  // said twice
  CHECK(own(rail).kind == kNothing);
}

TEST(a_broken_wire_needs_no_silence) {
  Time now = 0;
  Rail rail = seasoned(now);
  rail.put(1, 1000, now);
  rail.broken(now);
  CHECK(rail.take_went_down() && rail.take_reset());
  CHECK_EQ(rail.take_returned().size(), 1U);
  rail.broken(now);
  CHECK(!rail.take_went_down() && !rail.take_reset());
}

TEST(our_own_lateness_is_not_the_other_ends_silence) {
  Time now = 0;
  Rail rail = seasoned(now);
  rail.put(1, 1000, now);
  rail.poll(now);
  rail.poll(now += 1000 * kMs);  // this thread did not run for a second
  CHECK(rail.up());
  rail.arrive(ack(21), {}, now);
  CHECK(rail.ack_seconds() < 0.02);  // nor is it the ack's time
  rail.put(2, 1000, now);
  wait(rail, now, now + 200 * kMs);
  CHECK(!rail.up());
}

TEST(a_silent_control_link_goes_on_asking) {
  Time now = 0;
  Rail link = seasoned(now, {.resettable = false});
  link.put(1, 100, now);
  int probes = 0;
  for (int i = 0; i < 10'000; ++i) {
    wait(link, now, now + kMs);
    if (own(link).kind == Kind::probe) ++probes;
  }
  CHECK(!link.up() && link.take_went_down() && !link.take_reset());
  CHECK(probes >= 6 && probes <= 14);  // every 0.1, 0.2, ... 1.6 s
  link.arrive(ack(21), {}, now);
  CHECK(link.up() && link.take_came_up());
  CHECK_EQ(link.generation(), 0);
  CHECK_EQ(link.take_returned().size(), 1U);
}

TEST(an_idle_rail_is_asked_now_and_then) {
  Time now = 0;
  Rail rail = seasoned(now);
  wait(rail, now, now + 990 * kMs);
  CHECK(own(rail).kind == kNothing);
  wait(rail, now, now + 20 * kMs);
  const Header probe = own(rail);
  CHECK(probe.kind == Kind::probe);
  wait(rail, now, now + 110 * kMs);
  CHECK(!rail.up());  // noticed before anyone needed it
}

TEST(the_window_holds_two_chunks_and_what_the_wire_does) {
  Time now = 0;
  Rail unknown({}, true, now);
  CHECK_EQ(unknown.room(), 2 * kChunk);
  unknown.put(1, kChunk, now);
  CHECK_EQ(unknown.room(), kChunk);
  unknown.put(2, kChunk / 2, now);
  CHECK_EQ(unknown.room(), 0U);  // no room for a chunk is no room
  Rail slow({.rate = 1e6}, true, now);
  CHECK(slow.room() < 2 * kChunk + 6000);
  Rail fast({.rate = 1e12}, true, now);
  CHECK_EQ(fast.room(), 64U << 20U);
}

// Chunks both ways over a wire of 50 MB/s, as many as the windows allow; what each direction carries in a second. Acks wait
// behind the chunks that are queued already. A small frame has shown how short the way is; the second rail takes the wire for a
// little slower than it is, so that its window holds one chunk less.
TEST(two_directions_share_a_wire_though_one_begins_with_a_smaller_window) {
  constexpr double kRate = 50e6;
  struct Packet {
    Time due;
    Header header;
    std::size_t bytes;
  };
  Rail rails[2] = {Rail({.rate = 1.1 * kRate}, true, 0), Rail({.rate = 0.9 * kRate}, true, 0)};
  std::deque<Packet> wire[2];  // towards rails[i]
  Time free[2] = {0, 0};       // when the wire towards rails[i] has sent all of it
  std::size_t carried[2] = {0, 0};
  for (Time now = 0; now < 2000 * kMs; now += kMs / 10) {
    for (int i = 0; i < 2; ++i) {
      const auto send = [&](const Header& header, std::size_t bytes) {
        free[1 - i] = std::max(free[1 - i], now) + static_cast<Time>(static_cast<double>(bytes + 64) / kRate * 1e9);
        wire[1 - i].push_back({free[1 - i] + kMs / 10, header, bytes});
      };
      for (; !wire[i].empty() && wire[i].front().due <= now; wire[i].pop_front()) {
        rails[i].arrive(wire[i].front().header, {}, now);
        if (now >= 1000 * kMs) carried[i] += wire[i].front().bytes;
      }
      rails[i].poll(now);
      for (Header header = own(rails[i]); header.kind != kNothing; header = own(rails[i])) send(header, 0);
      if (now == 0) send({.kind = Kind::offer, .hop = rails[i].put(1, 0, now)}, 0);
      while (now >= 10 * kMs && rails[i].room() >= kChunk)
        send({.kind = Kind::chunk, .hop = rails[i].put(1, kChunk, now)}, kChunk);
      rails[i].take_acknowledged();
    }
  }
  CHECK_NEAR(static_cast<double>(carried[1]), kRate, 0.05 * kRate);
  CHECK_NEAR(static_cast<double>(carried[0]), kRate, 0.05 * kRate);
  for (const Rail& rail : rails) CHECK(rail.in_flight() <= 2'500'000);  // 50 ms: neither drives the other up
}

// Two rails and a wire of two directions, each in order; chaos stalls, breaks and resets it.
namespace {

struct Pair {
  struct Packet {
    Time due;
    Header header;
  };
  std::mt19937_64 random;
  Time now = 0;
  RailOptions options;
  Rail rails[2];
  std::deque<Packet> wire[2];  // towards rails[i]
  Time stalled[2] = {0, 0};
  Time connect_at = -1;
  std::uint16_t generation = 0;
  std::set<std::uint64_t> open[2], arrived[2];
  std::uint64_t frame = 0;

  explicit Pair(std::uint64_t seed, const RailOptions& o)
      : random(seed), options(o), rails{Rail(o, true, 0), Rail(o, true, 0)} {}

  std::uint64_t dice(std::uint64_t sides) { return random() % sides; }

  void post(int from, const Header& header) {
    const Time free = wire[1 - from].empty() ? now : wire[1 - from].back().due;
    wire[1 - from].push_back({std::max({free, now, stalled[1 - from]}) + static_cast<Time>(dice(10)) * kMs / 10, header});
  }

  void settle(int i) {
    Rail& rail = rails[i];
    rail.poll(now);
    for (Header header = own(rail); header.kind != kNothing; header = own(rail)) post(i, header);
    for (const std::uint64_t name : rail.take_acknowledged()) {
      CHECK(open[i].erase(name) == 1);
      CHECK(arrived[1 - i].contains(name));  // only what is there is acknowledged
    }
    for (const std::uint64_t name : rail.take_returned()) CHECK(open[i].erase(name) == 1);  // once, and never both
    if (rail.take_reset()) {
      rails[1 - i].broken(now);
      rails[1 - i].take_reset();
      wire[0].clear();
      wire[1].clear();
      connect_at = now + static_cast<Time>(dice(300)) * kMs;
    }
  }

  void step(bool chaos) {
    now += static_cast<Time>(dice(2000)) * kMs / 1000;
    for (int i = 0; i < 2; ++i) {
      while (!wire[i].empty() && wire[i].front().due <= now) {
        const Header header = wire[i].front().header;
        wire[i].pop_front();
        if (rails[i].arrive(header, {}, now) == Rail::Arrived::deliver) CHECK(arrived[i].insert(header.transfer).second);
      }
      if (connect_at >= 0 && now >= connect_at) {
        connect_at = -1;
        ++generation;
        for (Rail& rail : rails) rail.connected(generation, now);
      }
      if (chaos && rails[i].up() && rails[i].room() > 0 && dice(2) == 0) {
        Header header{.kind = Kind::chunk, .generation = rails[i].generation(), .transfer = ++frame};
        header.hop = rails[i].put(frame, 1 + dice(kChunk), now);
        open[i].insert(frame);
        post(i, header);
      }
      if (chaos && dice(400) == 0) {
        stalled[i] = now + static_cast<Time>(dice(500)) * kMs;
        for (Packet& packet : wire[i]) packet.due = std::max(packet.due, stalled[i]);
      }
      if (chaos && options.resettable && dice(3000) == 0) rails[i].broken(now);  // a control link only stalls
      settle(i);
      settle(1 - i);
    }
  }
};

}  // namespace

TEST(whatever_the_wire_does_every_frame_is_acknowledged_or_returned_once) {
  std::uint64_t down = 0, resent = 0, frames = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Pair pair(seed, {.resettable = seed % 4 != 0});
    for (int i = 0; i < 1500; ++i) pair.step(true);
    for (int i = 0; i < 4000 && !(pair.open[0].empty() && pair.open[1].empty() && pair.rails[0].up() && pair.rails[1].up());
         ++i)
      pair.step(false);
    for (int i = 0; i < 2; ++i) {
      CHECK(pair.open[i].empty());
      CHECK(pair.rails[i].up());
      CHECK_EQ(pair.rails[i].in_flight(), 0U);
      down += pair.rails[i].statistics().times_down;
      resent += pair.rails[i].statistics().frames_resent;
    }
    frames += pair.frame;
  }
  CHECK(down > 300 && resent > 1000 && frames > 50'000);  // the chaos is one
}

TEST_MAIN()
