#include "hetsp/comm/sending.h"

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "comm/wires.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace wires;

// What waits for its receive at the destination is no more than the window, however much is sent.
TEST(eager_messages_that_wait_are_limited) {
  Group group(grid(2, 1, 1), {.job = 7, .eager_bytes = 100, .eager_window = 1000});
  const auto sent = noise(100, 8);
  for (Operation i = 1; i <= 50; ++i) group.engine(0).send(i, 1, 0, sent, 0);
  group.settle();
  std::size_t inside = 0;
  for (const Header& header : group.seen) inside += header.kind == Kind::offer ? header.length : 0;
  CHECK_EQ(inside, std::size_t{1000});
  std::vector<std::vector<std::byte>> got(50, std::vector<std::byte>(100));
  for (Operation i = 1; i <= 50; ++i) group.engine(1).receive(100 + i, 0, 0, got[i - 1], 0);
  group.settle();
  for (const auto& one : got) CHECK(one == sent);
  group.engine(0).send(99, 1, 0, sent, 0);  // there is room again
  CHECK_EQ(group.engine(0).statistics().eager, std::uint64_t{11});
}

// What is not spread needs no question first, where a rail takes it in one piece.
TEST(messages_to_other_nodes_travel_inside_their_offers_up_to_another_limit) {
  EngineOptions options = kSmall;
  options.rail_eager_bytes = 1000;
  for (const auto& [bytes, peer] : {std::pair{1000, 6}, {1001, 6}, {1000, 2}, {100, 2}}) {
    check::context() = std::to_string(bytes) + " bytes to rank " + std::to_string(peer);
    Group group(grid(2, 4, 2), options);
    const auto sent = noise(static_cast<std::size_t>(bytes), 4);
    std::vector<std::byte> got(sent.size());
    group.engine(3).send(1, peer, 0, sent, 0);
    group.engine(peer).receive(2, 3, 0, got, 0);
    group.settle();
    CHECK(sent == got);
    const bool inside = bytes <= (peer == 6 ? 1000 : 100);
    CHECK_EQ(group.engine(3).statistics().eager, std::uint64_t{inside});
    for (const Header& header : group.seen) {
      CHECK(header.kind != Kind::chunk || !inside);
      CHECK(header.kind != Kind::offer || header.length == (inside ? sent.size() : 0));
      CHECK(header.kind != Kind::offer || header.length <= 100 || header.way == 2);  // the rail of rank 3
    }
  }
  options.rail_eager_bytes = 1001;
  CHECK_THROWS(hetsp::InvalidArgument, "rail_eager_bytes is 1001", Group(grid(2, 4, 2), options));
}

// A rail that lives no more, and then never again.
TEST(a_large_offer_waits_for_a_rail_and_takes_its_place_in_the_order_where_none_is_left) {
  EngineOptions options = kSmall;
  options.rail_eager_bytes = 1000;
  for (const bool comes_back : {true, false}) {
    check::context() = comes_back ? "comes back" : "is gone";
    Group group(grid(2, 2, 1), options);
    const auto large = noise(1000, 3), small = noise(10, 4);
    std::vector<std::byte> first(1000), second(10);
    group.engine(0).on_link_broken({Stage::rail, 2, 0}, "cut");
    group.engine(2).on_link_broken({Stage::rail, 0, 0}, "cut");
    group.settle();
    group.engine(1).send(1, 3, 5, large, 0);
    group.engine(1).send(2, 3, 5, small, 0);
    group.engine(3).receive(3, 1, 5, first, 0);
    group.engine(3).receive(4, 1, 5, second, 0);
    group.settle();
    CHECK(!group.done(3));
    if (comes_back) {
      group.engine(0).on_link_up({Stage::rail, 2, 0}, 2);
      group.engine(2).on_link_up({Stage::rail, 0, 0}, 2);
    } else {
      group.engine(2).leave();  // drives the only NIC of its node
    }
    group.settle(700);
    CHECK(group.outcome(4).kind == Outcome::Kind::done && second == small);
    if (comes_back) {
      CHECK(group.outcome(3).kind == Outcome::Kind::done && first == large);
    } else {
      CHECK(group.outcome(1).what.starts_with("rank 3 is out of reach"));
      CHECK(group.outcome(3).kind == Outcome::Kind::aborted);
    }
    group.settle(100);
    CHECK(group.engine(1).idle() && group.engine(3).idle());
  }
}

// What was forgotten, or lost on the way, is said again when the message is accepted: the receive does not wait for ever.
TEST(an_accept_of_a_message_that_was_canceled_is_answered) {
  Group group(grid(1, 2, 1), kSmall);
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

TEST_MAIN()
