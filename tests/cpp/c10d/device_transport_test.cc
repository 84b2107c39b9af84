#include "c10d/device_transport.h"

#include <random>
#include <string>
#include <thread>

#include "c10d/device_group.h"

using namespace device_group;
using wires::grid;
using Kind = comm::Outcome::Kind;

namespace {

using Messages = std::vector<std::unique_ptr<Group::Message>>;

// Everybody to everybody else, and how much of it came by NCCL.
void all_to_all(Group& group, std::size_t bytes, std::int64_t tag) {
  Messages messages;
  for (int from = 0; from < group.ranks(); ++from)
    for (int to = 0; to < group.ranks(); ++to)
      if (from != to) messages.push_back(group.send(from, to, bytes, tag));
  for (auto& message : messages) CHECK(message->arrived());
}

}  // namespace

TEST(messages_of_every_size_arrive_whole_both_ways_at_once) {
  Stub stub;
  Group group(stub, grid(1, 2, 1));
  CHECK_EQ(group.settled(), std::string());
  std::uint64_t chunks = 0;
  for (const std::size_t bytes : {0, 1, 99, 100, 999, 1000, 1001, 20'000}) {
    check::context() = std::to_string(bytes) + " bytes";
    all_to_all(group, bytes, 5);
    chunks += (bytes + 999) / 1000;
    const DeviceStatistics counts = group.driver(0).device_statistics();
    CHECK_EQ(counts.chunks_sent, chunks);
    CHECK_EQ(counts.chunks_received, chunks);
    CHECK_EQ(group.driver(0).statistics().eager, std::uint64_t{1});  // the empty one
  }
}

// On a stream for both directions every one of these would wait for the others.
TEST(rings_do_not_deadlock) {
  for (const auto& [nodes, ranks, nics] : {std::tuple{1, 3, 1}, {3, 1, 1}, {2, 2, 2}, {2, 3, 2}}) {
    for (std::uint64_t seed = 0; seed < 3; ++seed) {
      check::context() = std::to_string(nodes) + " x " + std::to_string(ranks) + ", seed " + std::to_string(seed);
      Stub stub;
      Group group(stub, grid(nodes, ranks, nics), {.seed = seed});
      CHECK_EQ(group.settled(), std::string());
      std::mt19937 random(static_cast<unsigned>(seed));
      for (int round = 0; round < 4; ++round) {
        Messages messages;
        for (int rank = 0; rank < group.ranks(); ++rank)
          messages.push_back(group.send(rank, (rank + 1) % group.ranks(), 1 + random() % 30'000, round));
        for (auto& message : messages) CHECK(message->arrived());
      }
    }
  }
}

TEST(a_message_is_spread_and_relayed_in_the_memory_of_devices) {
  Stub stub;
  Group group(stub, grid(2, 2, 2));
  CHECK_EQ(group.settled(), std::string());
  const auto relayed = [&] { return group.driver(1).statistics().chunks_relayed; };
  int messages = 0;
  do {  // a rail that is not up yet for the engine, or not asked soon enough, carries nothing of the first ones
    CHECK(group.send(0, 3, 200'000, messages)->arrived());
  } while (++messages < 100 && relayed() == 0);
  CHECK(relayed() > 0);
  CHECK(group.driver(1).device_statistics().chunks_received >= relayed());
  CHECK_EQ(group.driver(0).statistics().spread, static_cast<std::uint64_t>(messages));
}

TEST(messages_of_the_host_go_beside_those_of_devices_and_do_not_meet_them) {
  Stub stub;
  Group group(stub, grid(2, 2, 2));
  CHECK_EQ(group.settled(), std::string());
  Messages messages;
  for (int i = 0; i < 20; ++i)
    for (const bool device : {true, false}) messages.push_back(group.send(i % 4, (i + 1 + i % 3) % 4, 1 + 997 * i, i, device));
  for (auto& message : messages) CHECK(message->arrived());

  Result sent, received;
  std::vector<std::byte> out(5000);
  char* const in = group.fake().memory(1, std::string(5000, 'x'));
  group.driver(0).send(1, 99, out, 6, sent.done());
  group.driver(1).receive(0, 99, {reinterpret_cast<std::byte*>(in), 5000}, comm::kOnDevice | 6, received.done());
  CHECK(sent.wait().kind == Kind::invalid && received.wait().kind == Kind::invalid);
}

TEST(calls_of_nccl_that_are_in_progress_for_a_while_hold_nothing_up) {
  Stub stub;
  stub.set("slow", 3);
  Group group(stub, grid(2, 2, 2));
  CHECK_EQ(group.settled(), std::string());
  for (int round = 0; round < 3; ++round) all_to_all(group, 5000, round);
}

TEST(a_rail_that_breaks_is_connected_afresh_with_new_communicators) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Stub stub;
    Group group(stub, grid(2, 2, 2), {.seed = seed});
    CHECK_EQ(group.settled(), std::string());
    const std::int64_t begun = stub.count("begun");
    std::mt19937 random(static_cast<unsigned>(seed));
    for (int round = 0; round < 6; ++round) {
      Messages messages;
      for (int rank = 0; rank < 4; ++rank) messages.push_back(group.send(rank, (rank + 2) % 4, 40'000, round));
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
      const int rail = static_cast<int>(random() % 2);
      group.cable(comm::Stage::rail, rail, 2 + rail, rail)->cut("the cable is cut", random() % 2 == 0);
      for (auto& message : messages) CHECK(message->arrived());
    }
    CHECK(stub.count("begun") >= begun + 4);
    std::uint32_t down = 0;
    for (const auto& rail : group.driver(0).statistics().rails) down += static_cast<std::uint32_t>(rail.times_down);
    for (const auto& rail : group.driver(1).statistics().rails) down += static_cast<std::uint32_t>(rail.times_down);
    CHECK(down > 0);
  }
}

TEST(an_asynchronous_error_on_a_rail_costs_its_lane_alone) {
  Stub stub;
  Group group(stub, grid(2, 1, 1));
  CHECK_EQ(group.settled(), std::string());
  for (int round = 0; round < 3; ++round) {
    stub.set("error_after", 7);
    const auto there = group.send(0, 1, 30'000, round), back = group.send(1, 0, 30'000, round);
    CHECK(there->arrived() && back->arrived());
  }
  CHECK(group.driver(0).device_statistics().lanes_failed + group.driver(1).device_statistics().lanes_failed >= 3);
}

TEST(an_asynchronous_error_inside_a_node_loses_the_rank_in_the_words_of_nccl) {
  Stub stub;
  Group group(stub, grid(1, 2, 1));
  CHECK_EQ(group.settled(), std::string());
  stub.set("error_after", 3);
  const auto there = group.send(0, 1, 30'000, 0), back = group.send(1, 0, 30'000, 0);
  for (Result* const result : {&there->sent, &there->received, &back->sent, &back->received}) {
    const comm::Outcome& outcome = result->wait();
    CHECK(outcome.kind == Kind::peer_lost);
    CHECK(outcome.what.find("remote process exited") != std::string::npos);
    CHECK(outcome.what.find("the stub was told to fail") != std::string::npos);
  }
}

TEST(a_rank_that_dies_ends_what_is_open_and_no_kernel_is_left) {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Stub stub;
    Group group(stub, grid(1, 3, 1), {.seed = seed});
    CHECK_EQ(group.settled(), std::string());
    Messages messages;
    for (int rank = 0; rank < 3; ++rank)  // that to rank 2 is too long to be whole before the death, however late that comes
      messages.push_back(group.send(rank, (rank + 1) % 3, rank == 1 ? 20'000'000 : 2'000'000, 0));
    std::this_thread::sleep_for(std::chrono::milliseconds(seed * 3));
    group.kill(2);
    for (auto& message : messages) {
      CHECK(message->sent.wait().kind != Kind::aborted);
      CHECK(message->received.wait().kind == Kind::peer_lost || message->arrived());
    }
    CHECK(messages[1]->received.wait().kind == Kind::peer_lost);
  }
}

TEST(lanes_that_never_come_up_are_given_up_in_words_and_the_host_goes_on) {
  const std::vector<std::pair<const char*, const char*>> cases{{"never_ready", " within 200 ms"},
                                                               {"init_fails", "the stub was told not to begin"},
                                                               {"id_fails", "ncclGetUniqueId: unhandled system error"}};
  for (const auto& [knob, words] : cases) {
    Stub stub;
    stub.set(knob, 1);
    Group group(stub, grid(2, 2, 2), {.limit = std::chrono::milliseconds(knob == std::string("never_ready") ? 200 : 3000)});
    const std::string why = group.settled();
    check::context() = std::string(knob) + ": " + why;
    CHECK(why.find(words) != std::string::npos);
    CHECK(why.find("the lane between this rank and rank ") == 0);
    group.turn_off();
    Messages messages;
    for (int rank = 0; rank < 4; ++rank)
      for (int to = 0; to < 4; ++to)
        if (rank != to) messages.push_back(group.send(rank, to, 50'000, 0, false));
    for (auto& message : messages) CHECK(message->arrived());
    CHECK_EQ(group.driver(0).device_statistics().chunks_sent, std::uint64_t{0});
    group.cable(comm::Stage::rail, 0, 2, 0)->cut("the cable is cut");  // connected afresh without lanes
    for (int i = 0; i < 5; ++i) CHECK(group.send(0, 2, 100'000, 1 + i, false)->arrived());
  }
}

TEST(a_device_that_cannot_be_used_at_all_is_a_reason_too) {
  Stub stub;
  Group group(stub, grid(1, 1, 1));
  CHECK_EQ(group.settled(), std::string());  // nobody to have a lane with
  FakeDevice fake;
  fake.fail("create_stream");
  const DeviceSetup setup{.runtime = &fake, .device = 0, .nccl = stub.library()};
  Driver driver(grid(1, 1, 1), 0, {.job = 7}, {}, {[](comm::Link, std::uint16_t) { return Connection{}; }, [] {}}, setup);
  CHECK(driver.device_settled().find("create_stream: cudaErrorLaunchFailure") != std::string::npos);
}

TEST(an_operation_ends_only_when_no_copy_reads_its_memory) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Stub stub;
    Group group(stub, grid(2, 2, 2), {.seed = seed, .slowest_us = 300});
    CHECK_EQ(group.settled(), std::string());
    for (int round = 0; round < 5; ++round) {
      constexpr std::size_t bytes = 100'000;
      auto* const out = static_cast<std::byte*>([&] {
        const staging::CurrentDevice current(group.fake(), 0);
        return group.fake().allocate(bytes);
      }());
      char* const in = group.fake().memory(3, std::string(bytes, 'x'));
      Result sent, received;
      const auto operation = group.driver(0).send(3, round, {out, bytes}, comm::kOnDevice, sent.done());
      group.driver(3).receive(0, round, {reinterpret_cast<std::byte*>(in), bytes}, comm::kOnDevice, received.done());
      std::this_thread::sleep_for(std::chrono::microseconds(1500 * round));
      group.driver(0).cancel(operation, "the test gave it up");
      sent.wait();
      group.fake().free(out);  // a copy that is queued still, or begins later, would touch what is gone
      CHECK(received.wait().kind != Kind::peer_lost);
      CHECK_EQ(sent.times(), 1);
    }
    all_to_all(group, 5000, 99);
  }
}

TEST(a_lost_device_ends_the_group_and_hangs_nobody) {
  Stub stub;
  Group group(stub, grid(1, 2, 1));
  CHECK_EQ(group.settled(), std::string());
  const auto under_way = group.send(0, 1, 3'000'000, 0);  // may be through before the fault
  group.break_device();
  const auto there = group.send(0, 1, 3000, 1), back = group.send(1, 0, 3000, 1);
  for (Result* const result : {&there->sent, &there->received, &back->sent, &back->received}) {
    const comm::Outcome& outcome = result->wait();
    CHECK(outcome.kind != Kind::done);
    CHECK(outcome.what.find("cudaErrorIllegalAddress") != std::string::npos || outcome.kind == Kind::peer_lost);
  }
  under_way->sent.wait();
  under_way->received.wait();
}

TEST_MAIN()
