// Ranks that leave in peace: what they still owe arrives, and what only they could carry fails, or is carried on.
#include <cstddef>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "support/check.h"

using namespace wires;

TEST(a_goodbye_is_no_death) {
  Group group(grid(2, 2, 2), kSmall);
  std::vector<std::byte> got(10), more(200), sent = noise(10, 3), large = noise(200, 3);
  group.engine(0).receive(1, 3, 5, got, 0);
  group.engine(0).receive(2, 3, 6, got, 0);
  group.engine(0).receive(3, 1, 7, more, 0);
  group.engine(3).send(4, 0, 5, sent, 0);
  group.settle();
  group.engine(3).leave();
  group.settle();
  CHECK(group.engine(3).idle());
  group.engine(0).on_link_broken({Stage::control, 3, 0}, "closed");
  group.settle(600);
  CHECK(group.outcome(1).kind == Outcome::Kind::done);
  CHECK_EQ(group.outcome(2).what, std::string("rank 3 left the group (receiving from rank 3, no transfer begun, rail 0)"));
  CHECK(!group.done(3));
  group.engine(1).send(5, 0, 7, large, 0);
  group.settle();
  CHECK(group.outcome(3).kind == Outcome::Kind::done && more == large);
  group.engine(0).send(6, 3, 5, sent, 0);
  CHECK_EQ(group.outcome(6).what, std::string("rank 3 left the group (sending to rank 3, no transfer begun, rail 0)"));
}

TEST(what_nobody_is_left_to_carry_or_send_fails) {
  Group group(grid(2, 2, 1), kSmall);
  std::vector<std::byte> got(10), more(5000), sent = noise(10, 3), large = noise(5000, 3);
  group.engine(1).send(1, 3, 5, large, 0);
  group.settle();
  group.engine(2).leave();  // drives the only NIC of its node
  group.settle(600);
  group.engine(3).receive(2, 1, 5, more, 0);
  group.settle();
  CHECK_EQ(group.outcome(1).what,
           std::string("rank 3 is out of reach: the ranks that drive its NICs left the group (sending to "
                       "rank 3, transfer 1, rail 0)"));
  CHECK(group.outcome(2).kind == Outcome::Kind::aborted);
  group.engine(1).send(3, 3, 6, sent, 0);  // small ones find their way
  group.engine(3).receive(4, 1, 6, got, 0);
  group.settle();
  CHECK(group.outcome(4).kind == Outcome::Kind::done && got == sent);
  group.engine(0).receive(5, any_source, 7, got, 0);
  group.engine(1).leave();
  group.engine(3).leave();
  group.settle(600);
  CHECK(group.outcome(5).kind == Outcome::Kind::peer_lost);
  CHECK(group.outcome(5).what.ends_with("left the group, the last of the others (receiving from any rank)"));
}

// The ranks 0 and 2 drive the only NIC of their node.
TEST(who_retires_has_no_messages_any_more_and_carries_on_for_ranks_without_a_nic) {
  Group group(grid(2, 2, 1), kSmall);
  std::vector<std::byte> got(10), more(5000), sent = noise(10, 3), large = noise(5000, 3);
  CHECK(group.engine(0).needed() && group.engine(2).needed());
  CHECK(!group.engine(1).needed() && !group.engine(3).needed());
  group.engine(1).receive(1, 0, 5, got, 0);
  group.engine(0).receive(2, 3, 5, got, 0);
  group.engine(0).retire();
  group.engine(2).retire();
  group.settle(600);
  CHECK_EQ(group.outcome(1).what,
           std::string("rank 0 left the group (receiving from rank 0, no transfer begun, inside the node)"));
  CHECK(group.outcome(2).kind == Outcome::Kind::aborted);
  group.engine(1).send(3, 0, 5, sent, 0);
  CHECK(group.outcome(3).what.starts_with("rank 0 left the group"));
  group.engine(0).send(4, 3, 5, sent, 0);
  CHECK(group.outcome(4).kind == Outcome::Kind::aborted);

  group.engine(1).send(5, 3, 6, large, 0);
  group.engine(3).receive(6, 1, 6, more, 0);
  group.settle();
  CHECK(group.outcome(5).kind == Outcome::Kind::done && group.outcome(6).kind == Outcome::Kind::done && more == large);
  CHECK(group.engine(0).needed() && group.engine(2).needed());
  CHECK(group.engine(0).idle() && group.engine(2).idle());

  group.engine(3).receive(7, any_source, 6, got, 0);
  group.engine(1).leave();
  group.settle(600);
  CHECK(!group.engine(0).needed() && !group.engine(2).needed());  // rank 3 has nobody left to talk to
  CHECK(group.outcome(7).what.ends_with("left the group, the last of the others (receiving from any rank)"));
  group.engine(0).leave();
  group.engine(2).leave();
  group.settle(600);
  group.engine(3).leave();
  group.settle();
  for (int rank = 0; rank < 4; ++rank) CHECK(group.engine(rank).idle());
  CHECK_EQ(group.held(), std::size_t{0});
}

TEST(who_leaves_after_retiring_takes_its_nic_along) {
  Group group(grid(2, 2, 1), kSmall);
  std::vector<std::byte> more(5000), large = noise(5000, 3);
  group.engine(2).retire();
  group.settle(600);
  group.engine(1).send(1, 3, 6, large, 0);
  group.settle();
  CHECK(!group.done(1));
  group.engine(2).leave();
  group.settle(600);
  group.engine(3).receive(2, 1, 6, more, 0);
  group.settle();
  CHECK(group.outcome(1).what.starts_with("rank 3 is out of reach"));
}

TEST(a_cause_ends_what_a_retired_rank_still_does) {
  Group group(grid(2, 2, 1), kSmall);
  group.engine(0).retire();
  group.settle(600);
  CHECK(group.engine(0).needed());
  group.die(3);
  group.settle();
  CHECK(!group.engine(0).needed());
}

TEST_MAIN()
