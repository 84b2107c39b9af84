// Each fault alone, on two nodes of four ranks with four NICs of 50 MB/s, in virtual time: how soon it is noticed, what it
// costs, when the NIC is used again.
#include <cstdio>
#include <functional>
#include <string>

#include "comm/virtual_group.h"
#include "support/check.h"

using namespace virtual_network;

namespace {

constexpr std::size_t kMb = 1'000'000;
constexpr double kNic = 50e6;

double seconds(Time time) { return static_cast<double>(time) * 1e-9; }

void all_right(Group& group) {
  for (const Message& message : group.messages) {
    CHECK(message.sent && message.sent->kind == Outcome::Kind::done);
    CHECK(message.received && message.received->kind == Outcome::Kind::done);
    CHECK(message.in == message.expected);
  }
  CHECK_EQ(group.touched_after_the_end(), 0);
  for (const std::string& complaint : group.complaints) check::fail(__FILE__, __LINE__, complaint);
}

RailStatistics rail(Group& group, int rank, int k) {
  for (const RailStatistics& rail : group.engine(rank).statistics().rails)
    if (rail.rail == k) return rail;
  return {};
}

// Messages of 1 MB one after the other, until the rail carries some of them again; how long that took.
Time until_used(Group& group, int k) {
  const Time begin = group.clock.now();
  const std::uint64_t before = rail(group, 0 + k, k).bytes_sent;
  while (group.clock.now() < begin + 5 * kSecond && rail(group, 0 + k, k).bytes_sent < before + 512 * 1024) {
    group.exchange(0, 4, 9, kMb);
    CHECK(group.run(10 * kSecond));
  }
  return group.clock.now() - begin;
}

// 96 MB from rank 0 to rank 4; NIC 2 fails after 100 ms and is well again two seconds later.
void one_fault(const std::string& name, const std::function<void(Group&)>& breaks, const std::function<void(Group&)>& mends) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    check::context() = name + ", seed " + std::to_string(seed);
    Group group({.ghosts = 0.5, .foreigners = 0.01}, seed);
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 96 * kMb);
    const Time begin = group.clock.now();
    group.clock.after(100 * kMs, [&] { breaks(group); });
    group.clock.after(2100 * kMs, [&] { mends(group); });
    CHECK(group.run(30 * kSecond));
    const double bound = 0.1 + (96e6 - 0.1 * 4 * kNic) / (3 * kNic);
    const double took = seconds(std::max(message.sent_at, message.received_at) - begin);
    const double noticed = std::max(rail(group, 2, 2).silence_noticed, rail(group, 6, 2).silence_noticed);
    CHECK(took <= 1.1 * bound);
    CHECK(noticed <= 0.2);
    CHECK(rail(group, 2, 2).times_down >= 1);
    group.pass(begin + 2100 * kMs - group.clock.now());
    const Time used = until_used(group, 2);
    CHECK(used <= 2 * kSecond);
    if (seed == 1)
      std::printf("     %s: %.3f of the bound, noticed after %.0f ms, used again after %.2f s\n", name.c_str(), took / bound,
                  noticed * 1e3, seconds(used));
    all_right(group);
  }
}

}  // namespace

TEST(a_nic_that_goes_down_on_either_side) {
  for (const int node : {0, 1})
    one_fault(
        node == 0 ? "down at the source" : "down at the destination", [node](Group& g) { g.nic(node, 2).up = false; },
        [node](Group& g) { g.nic(node, 2).up = true; });
}

TEST(a_black_hole_in_one_direction) {
  for (const int node : {0, 1}) {
    one_fault(
        node == 0 ? "deaf source" : "deaf destination", [node](Group& g) { g.nic(node, 2).hears = false; },
        [node](Group& g) { g.nic(node, 2).hears = true; });
    one_fault(
        node == 0 ? "mute source" : "mute destination", [node](Group& g) { g.nic(node, 2).speaks = false; },
        [node](Group& g) { g.nic(node, 2).speaks = true; });
  }
}

TEST(the_sources_own_nic) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Group group({}, seed);
    group.pass(10 * kMs);
    Message& message = group.exchange(2, 6, 0, 96 * kMb);
    group.clock.after(100 * kMs, [&] { group.nic(0, 2).up = false; });
    CHECK(group.run(30 * kSecond));
    CHECK(seconds(message.received_at - message.posted) <= 1.1 * (0.1 + (96e6 - 0.1 * 4 * kNic) / (3 * kNic)));
    all_right(group);
  }
}

TEST(the_nic_that_carries_control_messages_too) {
  for (const int node : {0, 1}) {
    check::context() = "node " + std::to_string(node);
    Group group({.control_nic = 2}, 3);
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 96 * kMb);
    group.clock.after(100 * kMs, [&] { group.nic(node, 2).up = false; });
    CHECK(group.run(30 * kSecond));
    CHECK(seconds(std::max(message.sent_at, message.received_at) - message.posted) <=
          1.1 * (0.1 + (96e6 - 0.1 * 4 * kNic) / (3 * kNic)));
    all_right(group);
  }
}

TEST(two_nics_at_once) {
  Group group({}, 4);
  group.pass(10 * kMs);
  Message& message = group.exchange(0, 4, 0, 96 * kMb);
  group.clock.after(100 * kMs, [&] { group.nic(0, 0).up = group.nic(1, 3).up = false; });
  CHECK(group.run(30 * kSecond));
  CHECK(seconds(message.received_at - message.posted) <= 1.1 * (0.1 + (96e6 - 0.1 * 4 * kNic) / (2 * kNic)));
  all_right(group);
}

TEST(a_nic_that_flaps) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Group group({.ghosts = 0.5}, seed);
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 96 * kMb);
    for (Time t = 50 * kMs; t < 3 * kSecond; t += 200 * kMs) {
      group.clock.after(t, [&] { group.nic(0, 1).up = false; });
      group.clock.after(t + 100 * kMs, [&] { group.nic(0, 1).up = true; });
    }
    CHECK(group.run(30 * kSecond));
    CHECK(seconds(message.received_at - message.posted) <= 1.1 * 96e6 / (3 * kNic));
    group.pass(3 * kSecond);
    CHECK(until_used(group, 1) <= 2 * kSecond);
    all_right(group);
  }
}

TEST(every_nic_down_delays_and_loses_nothing) {
  Group group({}, 5);
  group.pass(10 * kMs);
  group.exchange(0, 4, 0, 16 * kMb);
  group.clock.after(30 * kMs, [&] {
    for (int k = 0; k < 4; ++k) group.nic(0, k).up = false;
  });
  group.clock.after(1500 * kMs, [&] {
    for (int k = 0; k < 4; ++k) group.nic(0, k).up = true;
  });
  CHECK(group.run(6 * kSecond));
  all_right(group);
}

TEST(a_nic_that_is_down_when_the_group_begins) {
  for (const bool silent : {false, true}) {
    check::context() = silent ? "silent" : "down";
    Group group({}, 6);
    (silent ? group.nic(1, 2).hears : group.nic(1, 2).up) = false;
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 32 * kMb);
    CHECK(group.run(30 * kSecond));
    CHECK(seconds(message.received_at - message.posted) <= 1.1 * 32e6 / (3 * kNic));
    group.nic(1, 2).hears = group.nic(1, 2).up = true;
    CHECK(until_used(group, 2) <= 2 * kSecond);
    all_right(group);
  }
}

TEST(a_process_that_stands_still_is_not_dead) {
  for (int rank = 0; rank < 8; ++rank) {
    check::context() = "rank " + std::to_string(rank);
    Group group({.ghosts = 0.2}, 7);
    group.pass(10 * kMs);
    group.exchange(0, 4, 0, 32 * kMb);
    group.exchange(5, 1, 0, 4 * kMb);
    group.clock.after(50 * kMs, [&] { group.process(rank).stopped_until = group.clock.now() + 2 * kSecond; });
    CHECK(group.run(10 * kSecond));
    all_right(group);
  }
}

TEST(a_process_that_dies_ends_everything_everywhere_within_a_second) {
  for (int dead = 0; dead < 8; ++dead) {
    check::context() = "rank " + std::to_string(dead) + " dies";
    Group group({}, static_cast<std::uint64_t>(dead));
    group.pass(10 * kMs);
    for (int i = 0; i < 8; ++i) group.exchange(i, (i + 1) % 8, 0, 64 * kMb);
    for (int i = 0; i < 8; ++i) group.post_receive(group.message((i + 3) % 8, i, 5, 1000));  // nobody will send
    const Time begin = group.clock.now();
    group.clock.after(50 * kMs, [&] { group.die(dead); });
    CHECK(group.run(begin + 1050 * kMs - group.clock.now()));
    const std::string name = "rank " + std::to_string(dead);
    std::string said;
    for (const Message& message : group.messages) {
      for (const auto& [operation, outcome, rank] : {std::tuple{message.send, &message.sent, message.source},
                                                     std::tuple{message.receive, &message.received, message.destination}}) {
        if (operation == 0 || rank == dead || !*outcome) continue;
        const bool crosses = !group.topology().same_node(message.source, message.destination);
        if ((*outcome)->kind == Outcome::Kind::done && !crosses) continue;  // it had ended before
        CHECK((*outcome)->kind == Outcome::Kind::peer_lost);
        CHECK_EQ((*outcome)->what.substr(0, name.size() + 1), name + " ");
        if (crosses && message.expected.size() > kMb) said = (*outcome)->what;
      }
    }
    if (dead == 5) std::printf("     \"%s\"\n", said.c_str());
    CHECK(said.find("transfer") != std::string::npos);
    // Whatever comes later fails at once.
    const std::size_t before = group.messages.size();
    for (int i = 0; i < 8; ++i)
      if (i != dead) group.post_receive(group.message((i + 1) % 8, i, 6, 10));
    group.pass(200 * kMs);
    for (std::size_t i = before; i < group.messages.size(); ++i)
      CHECK(group.messages[i].received && group.messages[i].received->kind == Outcome::Kind::peer_lost);
    for (int i = 0; i < 8; ++i)
      if (i != dead) CHECK_EQ(group.process(i).held_bytes, 0U);
  }
}

TEST(who_leaves_because_of_a_death_passes_on_the_first_cause) {
  Group group({}, 8);
  group.pass(10 * kMs);
  for (int i = 0; i < 8; ++i) group.post_receive(group.message((i + 3) % 8, i, 5, 1000));
  // Rank 3 hears of it only from those who leave: its own connections to the dead rank say nothing.
  group.nic(0, 0).up = true;
  group.clock.after(50 * kMs, [&] { group.die(6); });
  group.clock.after(60 * kMs, [&] {
    for (const int rank : {4, 5, 7, 0, 1}) group.process(rank).happens([](Engine& engine) { engine.leave(); });
  });
  group.clock.after(200 * kMs, [&] {
    for (const int rank : {4, 5, 7, 0, 1}) group.die(rank);
  });
  CHECK(group.run(1050 * kMs));
  for (const Message& message : group.messages) {
    if (message.destination == 6 || !message.received) continue;
    CHECK(message.received->kind == Outcome::Kind::peer_lost);
    CHECK_EQ(message.received->what.substr(0, 7), "rank 6 ");
  }
}

TEST(who_leaves_in_peace_ends_only_what_needs_it) {
  Group group({}, 9);
  group.pass(10 * kMs);
  Message& stays = group.exchange(0, 4, 0, 16 * kMb);
  Message& ends = group.message(3, 1, 0, 10);
  group.post_receive(ends);
  group.clock.after(5 * kMs, [&] { group.process(3).happens([](Engine& engine) { engine.leave(); }); });
  group.clock.after(30 * kMs, [&] { group.die(3); });
  CHECK(group.run(5 * kSecond));
  CHECK(stays.received && stays.received->kind == Outcome::Kind::done && stays.in == stays.expected);
  CHECK(ends.received && ends.received->kind != Outcome::Kind::done);
  if (ends.received) CHECK_EQ(ends.received->what.substr(0, 7), "rank 3 ");
}

TEST_MAIN()
