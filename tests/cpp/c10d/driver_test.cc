#include "c10d/driver.h"

#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "c10d/driver_group.h"
#include "support/check.h"

using namespace scripted;
using namespace std::chrono_literals;

namespace {

using Bytes = std::vector<std::byte>;
using Kind = comm::Outcome::Kind;

Bytes pattern(std::size_t size, unsigned seed) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(seed * 131 + i * 7 + i / 256);
  return bytes;
}

Ends operation() { return std::make_shared<Watched<Ending>>(); }

Ends send(Driver& driver, int peer, const Bytes& bytes, std::int64_t tag = 0) {
  Ends ends = operation();
  driver.send(peer, tag, bytes, 1, DriverGroup::into(ends));
  return ends;
}

Ends receive(Driver& driver, int peer, Bytes& bytes, std::int64_t tag = 0) {
  Ends ends = operation();
  driver.receive(peer, tag, bytes, 1, DriverGroup::into(ends));
  return ends;
}

bool ends_as(const Ends& ends, Kind kind, const std::string& part = "") {
  if (!ended(ends)) return false;
  const Ending ending = ends->now();
  if (ending.times == 1 && ending.outcome.kind == kind && ending.outcome.what.find(part) != std::string::npos) return true;
  std::fprintf(stderr, "ended %d times, as kind %d: %s\n", ending.times, static_cast<int>(ending.outcome.kind),
               ending.outcome.what.c_str());
  return false;
}

// Keeps the driver's thread busy while the test fills its queue: what it posts then is taken in one batch.
class Held {
 public:
  explicit Held(Driver& driver) {
    // A message that no rank can match, ended at once: its `done` runs on the driver's thread.
    const comm::Operation waits = driver.receive(comm::any_source, 999, {}, 1, [this](const comm::Outcome&, int) {
      begun_.set_value();
      released_.get_future().wait();
      over_.set_value();
    });
    driver.cancel(waits, "to hold the thread");
    begun_.get_future().wait();
  }
  void release() { released_.set_value(); }
  ~Held() { over_.get_future().wait(); }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;

 private:
  std::promise<void> begun_, released_, over_;
};

}  // namespace

TEST(messages_of_every_size_in_a_node_and_between_nodes) {
  for (const GroupOptions& options : {GroupOptions{.nodes = 1, .ranks = 2}, GroupOptions{.nodes = 2, .ranks = 2, .nics = 2}}) {
    DriverGroup group(options);
    const int last = group.topology().ranks() - 1;
    unsigned seed = 0;
    for (const std::size_t size : {0, 1, 511, 512, 513, 4095, 4096, 4097, 100'000, 3'000'000}) {
      check::context() = std::to_string(options.nodes) + " nodes, " + std::to_string(size) + " bytes";
      const Bytes there = pattern(size, ++seed), back = pattern(size, ++seed);
      Bytes got_there(size), got_back(size);
      const Ends ends[] = {receive(group.driver(last), 0, got_there), send(group.driver(0), last, there),
                           send(group.driver(last), 0, back), receive(group.driver(0), comm::any_source, got_back)};
      for (const Ends& it : ends) CHECK(ends_as(it, Kind::done));
      CHECK_EQ(ends[3]->now().source, last);
      CHECK(got_there == there);
      CHECK(got_back == back);
    }
    group.close(5s);
    CHECK_EQ(group.driver(0).statistics().messages_sent, 10u);
  }
}

TEST(a_receive_is_canceled_before_and_after_it_has_met_its_message) {
  DriverGroup group({.nodes = 1, .ranks = 2});
  Bytes room(100'000);
  {
    const Ends ends = operation();
    const comm::Operation lonely = group.driver(1).receive(0, 5, room, 1, DriverGroup::into(ends));
    group.driver(1).cancel(lonely, "not needed");
    CHECK(ends_as(ends, Kind::aborted, "not needed"));
    group.driver(1).cancel(lonely, "again");  // changes nothing
  }
  // Under way: nothing moves inside the node while it is canceled; both sides end.
  group.fixed(comm::Stage::local, 0, 1).stall(true);
  const Bytes bytes = pattern(100'000, 1);
  const Ends sent = send(group.driver(0), 1, bytes, 6), got = operation();
  const comm::Operation waits = group.driver(1).receive(0, 6, room, 1, DriverGroup::into(got));
  group.driver(1).cancel(waits, "given up");
  CHECK(ends_as(got, Kind::aborted, "given up"));
  group.fixed(comm::Stage::local, 0, 1).stall(false);
  // Whether the message had met its receive or finds none, it ends with the group.
  group.close({});
  CHECK(ends_as(sent, Kind::aborted));
}

TEST(close_lets_what_was_sent_arrive_within_its_grace) {
  DriverGroup group({.nodes = 1, .ranks = 2});
  const Bytes bytes = pattern(300'000, 1);
  Bytes room(bytes.size());
  const Ends sent = send(group.driver(0), 1, bytes);
  std::thread closing([&] { group.driver(0).close(30s); });
  std::this_thread::sleep_for(20ms);
  const Ends got = receive(group.driver(1), 0, room);
  closing.join();
  CHECK(ends_as(sent, Kind::done));
  CHECK(ends_as(got, Kind::done));
  CHECK(room == bytes);
  // It said goodbye.
  CHECK(ends_as(send(group.driver(1), 0, bytes), Kind::peer_lost, "rank 0 left the group"));
}

TEST(close_without_a_grace_ends_what_is_open_and_what_comes_later) {
  DriverGroup group({.nodes = 1, .ranks = 2});
  const Bytes bytes = pattern(300'000, 1);
  Bytes room(bytes.size());
  const Bytes small(16);
  const Ends unmatched = send(group.driver(0), 1, small, 3);
  const Ends open[] = {send(group.driver(0), 1, bytes), receive(group.driver(0), 1, room),
                       receive(group.driver(0), -1, room, 4)};
  group.driver(0).close({});
  for (const Ends& ends : open) CHECK(ends_as(ends, Kind::aborted));
  CHECK(ends_as(unmatched, Kind::aborted));
  CHECK(ends_as(send(group.driver(0), 1, bytes), Kind::aborted, "shut down"));
  CHECK(ends_as(receive(group.driver(0), 1, room), Kind::aborted, "shut down"));
  group.driver(0).cancel(1, "too late");
  group.driver(0).close(1s);
  CHECK_EQ(group.driver(0).statistics().eager, 1u);
}

// A wrong peer is a bug of the caller's: the engine throws, the group ends. What stood behind it in the queue ends as well.
// Ranks 0 and 2 drive the only NIC of their node.
TEST(who_retires_lets_what_it_sent_arrive_and_carries_on_for_ranks_without_a_nic) {
  DriverGroup group({.nodes = 2, .ranks = 2, .nics = 1});
  const Bytes own = pattern(20'000, 1), large = pattern(50'000, 2);
  Bytes first(own.size()), second(large.size());
  const Ends sent = send(group.driver(0), 3, own, 7);
  group.driver(0).retire(60s);
  group.driver(2).retire(0s);
  CHECK(group.driver(0).carries() && group.driver(2).carries());
  CHECK(!group.driver(1).carries());  // drives none
  const Ends got = receive(group.driver(3), 0, first, 7);
  CHECK(ended(sent) && ended(got) && first == own);
  const Ends through = send(group.driver(1), 3, large), arrived = receive(group.driver(3), 1, second);
  CHECK(ended(through) && ended(arrived) && second == large);
  CHECK(group.driver(0).carries() && group.driver(2).carries());
  const Ends late = send(group.driver(0), 3, own);
  CHECK(ended(late) && late->now().outcome.kind == Kind::aborted);
  group.driver(1).close(1s);
  group.driver(3).close(1s);
  for (const int rank : {0, 2}) {
    const auto until = std::chrono::steady_clock::now() + 60s;
    while (group.driver(rank).carries() && std::chrono::steady_clock::now() < until) std::this_thread::sleep_for(1ms);
    CHECK(!group.driver(rank).carries());
  }
}

TEST(an_exception_inside_ends_every_operation_once_also_those_behind_it) {
  DriverGroup group({.nodes = 1, .ranks = 2});
  Bytes bytes = pattern(300'000, 1), room(bytes.size());
  const Ends before = receive(group.driver(0), 1, room, 8);
  Ends wrong, behind, received;
  std::future<comm::Statistics> counts;
  {
    Held held(group.driver(0));
    wrong = send(group.driver(0), 7, bytes);
    behind = send(group.driver(0), 1, bytes);
    received = receive(group.driver(0), 1, room);
    std::promise<void> asks;
    counts = std::async(std::launch::async, [&] {
      asks.set_value();
      return group.driver(0).statistics();
    });
    asks.get_future().wait();
    std::this_thread::sleep_for(20ms);  // most often it is in the queue by now
    held.release();
  }
  for (const Ends& ends : {before, wrong, behind, received}) CHECK(ends_as(ends, Kind::aborted, "rank 7 is no peer"));
  CHECK_EQ(counts.get().foreign_dropped, 0u);
  CHECK(ends_as(send(group.driver(0), 1, bytes), Kind::aborted, "rank 7 is no peer"));
  // For the others this rank is gone.
  CHECK(ends_as(receive(group.driver(1), 0, room), Kind::peer_lost, "rank 0"));
}

TEST(statistics_after_the_end_are_the_last_ones_whenever_they_are_asked) {
  for (int round = 0; round < 50; ++round) {
    DriverGroup group({.nodes = 1, .ranks = 2});
    const Bytes bytes = pattern(100, 1);
    Bytes room(bytes.size());
    const Ends got = receive(group.driver(1), 0, room);
    CHECK(ends_as(send(group.driver(0), 1, bytes), Kind::done));
    CHECK(ends_as(got, Kind::done));
    std::atomic<bool> over = false;
    std::thread asking([&] {
      while (!over) CHECK_EQ(group.driver(0).statistics().messages_sent, 1u);
    });
    group.driver(0).close({});
    over = true;
    asking.join();
    CHECK_EQ(group.driver(0).statistics().messages_sent, 1u);
  }
}

TEST(a_death_is_noticed_also_while_a_frame_is_half_in) {
  for (const bool half_in : {false, true}) {
    check::context() = half_in ? "half in" : "between frames";
    DriverGroup group({.nodes = 1, .ranks = 2});
    Bytes bytes = pattern(300'000, 1), room(bytes.size());
    const Ends waits = receive(group.driver(1), 0, room);
    group.kill(0, half_in);
    CHECK(ends_as(waits, Kind::peer_lost, "rank 0"));
    CHECK(ends_as(send(group.driver(1), 0, bytes), Kind::peer_lost, "rank 0"));
  }
}

TEST(rails_that_are_down_at_first_are_used_when_the_dialler_gets_through) {
  DriverGroup group({.nodes = 2, .ranks = 1, .nics = 2, .rails_up = false});
  const Bytes bytes = pattern(500'000, 1);
  Bytes room(bytes.size());
  const Ends got = receive(group.driver(1), 0, room);
  CHECK(ends_as(send(group.driver(0), 1, bytes), Kind::done));
  CHECK(ends_as(got, Kind::done));
  CHECK(room == bytes);
  for (const comm::RailStatistics& rail : group.driver(0).statistics().rails) CHECK(rail.generation > 0);
}

TEST(a_driver_ends_while_its_diallers_wait) {
  DriverGroup group({.nodes = 2, .ranks = 1, .nics = 2, .rails_up = false});
  for (const int rail : {0, 1}) group.exchange.down(rail, true);
  const Bytes bytes = pattern(500'000, 1);
  const Ends sent = send(group.driver(0), 1, bytes);
  group.driver(0).close(10ms);
  CHECK(ends_as(sent, Kind::aborted));
}

TEST_MAIN()
