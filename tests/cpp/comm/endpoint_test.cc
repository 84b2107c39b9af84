#include "hetsp/comm/endpoint.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace wires;

namespace {

const EngineOptions options{.job = 7, .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};

struct Deaf final : Transport {
  void send(Link, const Header&, std::span<const std::byte>, Token) override {}
  void forward(Link, const Header&, Arrival, Token) override {}
  void store(Arrival, std::byte*, Token) override {}
  void release(Arrival) override {}
  void reset(Link) override {}
  void complete(Operation, const Outcome&) override {}
};

}  // namespace

// A rank that cancels without end what it never offers takes a bounded piece of memory, and the cancels that matter first stay.
TEST(cancels_before_their_offers_are_bounded) {
  Deaf transport;
  Endpoint endpoint(grid(2, 2, 1), 1, options, transport, 0);
  std::mt19937_64 random(1);
  for (int i = 0; i < 100'000; ++i) {
    for (const std::uint16_t source : {std::uint16_t{0}, std::uint16_t{2}, std::uint16_t{3}}) {
      const std::uint64_t transfer = i % 2 == 0 ? 5'000 + random() % 1'000'000 : random() | (std::uint64_t{1} << 40);
      Header header{.kind = Kind::cancel, .job = options.job, .transfer = transfer, .source = source, .destination = 1};
      endpoint.on_frame({Stage::control, source, 0}, header, 0, {});
      if (i == 50'000) {
        header.transfer = 4'999;
        endpoint.on_frame({Stage::control, source, 0}, header, 0, {});
      }
    }
  }
  for (const std::size_t source : {0, 2, 3}) {
    CHECK_EQ(endpoint.canceled_early[source].size(), Endpoint::kCanceledEarly);
    CHECK_EQ(*endpoint.canceled_early[source].begin(), std::uint64_t{4'999});
  }
  CHECK(endpoint.canceled_early[1].empty());
}

// What was forgotten, or lost on the way, is said again when the message is accepted: the receive does not wait for ever.
TEST(an_accept_of_a_message_that_was_canceled_is_answered) {
  Group group(grid(1, 2, 1), options);
  std::vector<std::byte> sent(5000), got(5000);
  group.lose = [](Link, const Header& header) { return header.kind == Kind::cancel; };
  group.engine(0).send(1, 1, 5, sent, 0);
  group.engine(0).cancel(1, "timed out");
  group.settle();
  group.lose = nullptr;
  group.engine(1).receive(2, 0, 5, got, 0);
  group.settle();
  CHECK(group.done(2) && group.outcome(2).kind == Outcome::Kind::aborted);
  CHECK(group.done(2) && group.outcome(2).what.find("aborted by rank 0") != std::string::npos);
}

TEST(what_is_given_up_ends_the_other_side_whoever_comes_first) {
  for (const std::size_t bytes : {0, 50, 5000})
    for (const bool first : {true, false}) {
      check::context() = std::to_string(bytes) + (first ? " bytes, given up first" : " bytes, given up last");
      Group group(grid(2, 1, 1), options);
      std::vector<std::byte> memory(bytes), next(bytes), other(bytes);
      // A message that will not be made.
      if (!first) group.engine(1).receive(1, 0, 5, memory, 0);
      group.engine(0).send_given_up(1, 5, bytes, 0);
      group.settle();
      if (first) group.engine(1).receive(1, 0, 5, memory, 0);
      group.settle();
      CHECK(group.done(1) && group.outcome(1).kind == Outcome::Kind::aborted);
      // A receive that will not be there.
      if (!first) group.engine(0).send(2, 1, 6, memory, 0);
      group.engine(1).receive(3, 0, 6, other, 0);
      group.engine(1).cancel(3, "given up", true);
      group.settle();
      if (first) group.engine(0).send(2, 1, 6, memory, 0);
      group.settle();
      CHECK(group.done(2) && group.done(3) && group.outcome(3).kind == Outcome::Kind::aborted);
      CHECK(group.done(2) && group.outcome(2).kind == Outcome::Kind::aborted);
      // Each took one message with it: those that follow on the same tags meet theirs.
      for (const std::int64_t tag : {5, 6}) {
        const auto operation = static_cast<Operation>(tag * 10);
        group.engine(0).send(operation, 1, tag, memory, 0);
        group.engine(1).receive(operation + 1, 0, tag, next, 0);
        group.settle();
        CHECK(group.done(operation + 1) && group.outcome(operation + 1).kind == Outcome::Kind::done);
      }
      CHECK_EQ(group.held(), std::size_t{0});
    }
}

// A receive that was given up and has met nothing is nobody's any more: the end of the group does not name it.
TEST(what_was_given_up_for_good_is_not_ended_twice) {
  Group group(grid(1, 3, 1), options);
  std::vector<std::byte> memory(50);
  for (Operation operation = 1; operation <= 3; ++operation) {
    group.engine(1).receive(operation, operation == 3 ? any_source : 0, 5, memory, 0);
    group.engine(1).cancel(operation, "given up", true);
  }
  group.die(0);
  group.settle();
  group.die(2);
  group.settle();
  for (Operation operation = 1; operation <= 3; ++operation)
    CHECK(group.done(operation) && group.outcome(operation).what == "given up");
}

TEST_MAIN()
