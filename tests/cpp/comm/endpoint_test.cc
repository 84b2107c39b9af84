#include "hetsp/comm/endpoint.h"

#include <cstdint>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace wires;

namespace {

const EngineOptions options{.job = 7, .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};

}  // namespace

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
