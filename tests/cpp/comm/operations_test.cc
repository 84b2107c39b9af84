#include "hetsp/comm/operations.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "comm/wires.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace wires;

namespace {

struct Ended final : Transport {
  std::vector<std::pair<Operation, std::string>> all;
  void send(Link, const Header&, std::span<const std::byte>, Token) override {}
  void forward(Link, const Header&, Arrival, Token) override {}
  void store(Arrival, std::byte*, Token) override {}
  void release(Arrival) override {}
  void reset(Link) override {}
  void complete(Operation operation, const Outcome& outcome) override { all.emplace_back(operation, outcome.what); }
};

struct Given {
  Topology topology = grid(2, 2, 2);
  RouteTable routes{topology, 1};
  Ended ended;
  Operations operations{topology, 1, routes, ended};
};

}  // namespace

TEST(an_operation_ends_once) {
  Given given;
  given.operations.begin(5, true, 0, 0);
  given.operations.begin(6, false, any_source, 0);
  auto names = given.operations.all();
  std::sort(names.begin(), names.end());
  CHECK(names == (std::vector<Operation>{5, 6}));
  given.operations.complete(5, {Outcome::Kind::aborted, "first"});
  given.operations.complete(5, {Outcome::Kind::aborted, "second"});
  given.operations.complete(7, {});
  CHECK_EQ(given.ended.all.size(), std::size_t{1});
  CHECK_EQ(given.ended.all.front().second, std::string("first"));
  CHECK(given.operations.find(5) == nullptr && given.operations.find(6) != nullptr && !given.operations.empty());
  given.operations.begin(5, true, 0, 0);  // the name is free again
}

TEST(names_in_use_and_ranks_that_are_no_peer_are_refused) {
  Given given;
  given.operations.begin(5, true, 0, 0);
  CHECK_THROWS(hetsp::InvalidArgument, "is 0 or open already", given.operations.begin(5, true, 0, 0));
  CHECK_THROWS(hetsp::InvalidArgument, "is 0 or open already", given.operations.begin(0, true, 0, 0));
  for (const int peer : {-2, -1, 1, 4})
    CHECK_THROWS(hetsp::InvalidArgument, "is no peer of rank 1 in a group of 4", given.operations.begin(6, true, peer, 0));
  for (const int peer : {-2, 1, 4})
    CHECK_THROWS(hetsp::InvalidArgument, "is no peer of rank 1 in a group of 4", given.operations.begin(6, false, peer, 0));
  CHECK_EQ(given.operations.all().size(), std::size_t{1});
}

TEST(a_loss_says_what_the_operation_was_about) {
  Given given;
  for (const auto& [operation, sending, peer, transfer, rail, words] :
       {std::tuple{Operation{1}, true, 0, 7, -1, "sending to rank 0, transfer 7, inside the node"},
        {Operation{2}, false, 3, 0, -1, "receiving from rank 3, no transfer begun, rail 1"},
        {Operation{3}, false, 3, 9, 0, "receiving from rank 3, transfer 9, rail 0"},
        {Operation{4}, false, any_source, 0, -1, "receiving from any rank"}}) {
    given.operations.begin(operation, sending, peer, 0);
    given.operations.find(operation)->transfer = static_cast<std::uint64_t>(transfer);
    const Outcome outcome = given.operations.peer_lost("rank 2 is lost", operation, rail);
    CHECK(outcome.kind == Outcome::Kind::peer_lost);
    CHECK_EQ(outcome.what, std::string("rank 2 is lost (") + words + ")");
  }
  CHECK_EQ(given.operations.peer_lost("rank 2 is lost", 99, 0).what, std::string("rank 2 is lost"));
}

TEST_MAIN()
