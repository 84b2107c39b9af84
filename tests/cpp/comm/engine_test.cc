#include "hetsp/comm/engine.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "comm/wires.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace wires;

TEST(messages_of_every_size_arrive_whole) {
  for (const std::size_t bytes : {0, 1, 99, 100, 101, 999, 1000, 1001, 2999, 3000, 100'000}) {
    for (const int peer : {1, 4, 7}) {
      check::context() = std::to_string(bytes) + " bytes to rank " + std::to_string(peer);
      Group group(grid(2, 4, 4), kSmall);
      const auto sent = noise(bytes, 3);
      std::vector<std::byte> got(bytes);
      group.engine(0).send(1, peer, 5, sent, 9);
      group.settle();
      CHECK(!group.done(1));
      group.engine(peer).receive(2, 0, 5, got, 9);
      group.settle();
      CHECK(group.done(1) && group.done(2));
      CHECK(group.outcome(1).kind == Outcome::Kind::done && group.outcome(2).kind == Outcome::Kind::done);
      CHECK(sent == got);
      CHECK_EQ(group.held(), std::size_t{0});
      CHECK(group.engine(0).idle() && group.engine(peer).idle());
    }
  }
}

// An offer's payload is copied by the CPU, on both sides.
TEST(memory_of_a_device_never_travels_inside_an_offer) {
  for (const std::size_t bytes : {0, 1, 100, 5000}) {
    check::context() = std::to_string(bytes) + " bytes";
    Group group(grid(2, 4, 4), kSmall);
    const auto sent = noise(bytes, 5);
    std::vector<std::byte> got(bytes);
    group.engine(0).send(1, 5, 5, sent, kOnDevice | 9);
    group.engine(5).receive(2, 0, 5, got, kOnDevice | 9);
    group.settle();
    CHECK(group.done(1) && group.done(2) && sent == got);
    CHECK_EQ(group.engine(0).statistics().eager, std::uint64_t{bytes == 0});
    for (const Header& header : group.seen) {
      CHECK(header.kind != Kind::offer || header.length == 0);
      CHECK(header.kind != Kind::chunk || is_on_device(header.type));
    }

    // One that somebody forged is dropped: the receive goes on waiting for the true one.
    const std::vector<std::byte> poison(4);
    group.engine(5).receive(3, 0, 6, std::span(got).first(bytes > 4 ? 4 : bytes), kOnDevice | 9);
    const auto dropped = group.engine(5).statistics().messages_received;
    Header forged{.kind = Kind::offer,
                  .flags = 1,
                  .job = kSmall.job,
                  .transfer = 2,
                  .value = 4,
                  .tag = 6,
                  .length = 4,
                  .destination = 5,
                  .type = kOnDevice | 9};
    group.engine(5).on_frame({Stage::control, 0, 0}, forged, 0, poison);
    group.settle();
    CHECK(!group.done(3));
    CHECK_EQ(group.engine(5).statistics().messages_received, dropped);
  }
}

TEST(a_large_message_crosses_every_rail_and_a_small_one_its_own) {
  for (const std::size_t bytes : {2999, 200'000}) {
    Group group(grid(2, 4, 4), kSmall);
    const auto sent = noise(bytes, 4);
    std::vector<std::byte> got(bytes);
    group.engine(1).send(1, 6, 0, sent, 0);
    group.engine(6).receive(2, 1, 0, got, 0);
    group.settle();
    CHECK(sent == got);
    std::set<int> rails;
    for (const Header& header : group.seen)
      if (header.kind == Kind::chunk) rails.insert(header.rail);
    CHECK_EQ(rails.size(), std::size_t{bytes < 3000 ? 1u : 4u});
    CHECK(bytes >= 3000 || *rails.begin() == 1);
    CHECK_EQ(group.engine(1).statistics().spread, std::uint64_t{bytes >= 3000});
  }
}

TEST(sizes_and_types_that_differ_fail_both_sides_naming_both) {
  for (const std::size_t bytes : {50, 5000}) {
    for (const bool offered_first : {true, false}) {
      Group group(grid(2, 2, 2), kSmall);
      const auto sent = noise(bytes, 5);
      std::vector<std::byte> shorter(bytes - 1), equal(bytes);
      const auto send = [&] {
        group.engine(0).send(1, 3, 5, sent, 9);
        group.engine(0).send(2, 3, 6, sent, 9);
      };
      if (offered_first) send();
      group.settle();
      group.engine(3).receive(3, 0, 5, shorter, 9);
      group.engine(3).receive(4, 0, 6, equal, 8);
      group.settle();
      if (!offered_first) send();
      group.settle();
      for (const Operation operation : {1, 3}) {
        CHECK(group.outcome(operation).kind == Outcome::Kind::invalid);
        const std::string& what = group.outcome(operation).what;
        CHECK(what.find(std::to_string(bytes) + " bytes, its receive " + std::to_string(bytes - 1)) != std::string::npos);
      }
      for (const Operation operation : {2, 4}) {
        CHECK(group.outcome(operation).kind == Outcome::Kind::invalid);
        CHECK(group.outcome(operation).what.find("type code 9, its receive of type code 8") != std::string::npos);
      }
      CHECK(group.engine(0).idle() && group.engine(3).idle());
      CHECK_EQ(group.held(), std::size_t{0});
    }
  }
}

TEST(a_receive_from_any_source_learns_its_source) {
  Group group(grid(2, 2, 2), kSmall);
  const auto sent = noise(5000, 6);
  std::vector<std::byte> got(5000), none;
  group.engine(0).receive(1, any_source, 5, got, 0);
  group.engine(0).receive(2, any_source, 6, none, 0);
  group.engine(3).send(3, 0, 5, sent, 0);
  group.engine(1).send(4, 0, 6, {}, 0);
  group.settle();
  CHECK(sent == got);
  CHECK_EQ(group.engine(0).source_of(1), 3);
  CHECK_EQ(group.engine(0).source_of(2), 1);
  CHECK_THROWS(hetsp::InvalidArgument, "operation 2", group.engine(0).source_of(2));
}

TEST(thousands_of_messages_in_flight_keep_their_order) {
  for (unsigned seed = 0; seed < 4; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    Group group(grid(2, 2, 2), {.job = 7, .chunk_bytes = 1000, .eager_bytes = 100, .direct_bytes = 3000, .eager_window = 2000});
    constexpr int kMessages = 3000;
    std::vector<std::vector<std::byte>> sent, got;
    for (int i = 0; i < kMessages; ++i) {
      const std::size_t bytes = random() % 3 == 0 ? random() % 5000 : random() % 110;
      sent.push_back(noise(bytes, static_cast<unsigned>(random())));
      got.emplace_back(bytes);
    }
    for (int i = 0; i < kMessages; ++i) {
      group.engine(0).send(1 + i, 3, i % 3, sent[i], 0);
      if (seed % 2 == 0) group.engine(3).receive(10'000 + i, 0, i % 3, got[i], 0);
    }
    if (seed % 2 == 1) {
      group.settle();
      for (int tag = 2; tag >= 0; --tag)
        for (int i = tag; i < kMessages; i += 3) group.engine(3).receive(10'000 + i, 0, tag, got[i], 0);
    }
    group.settle();
    CHECK(sent == got);
    CHECK(group.engine(0).idle() && group.engine(3).idle());
    CHECK_EQ(group.held(), std::size_t{0});
  }
}

TEST(frames_of_another_epoch_are_dropped_counted_and_not_answered) {
  Group group(grid(2, 1, 1), kSmall);
  std::vector<std::byte> got(5000), sent = noise(5000, 2);
  group.engine(1).receive(1, 0, 5, got, 0);
  group.engine(0).send(2, 1, 5, sent, 0);
  group.settle();
  const std::size_t before = group.seen.size();
  const auto junk = noise(1000, 3);
  // A late duplicate of the transfer that has ended, one of a transfer that never was, one of another group.
  for (const Header& header : {Header{.kind = Kind::chunk, .job = 7, .transfer = 1, .length = 1000, .destination = 1},
                               Header{.kind = Kind::chunk, .job = 7, .transfer = 8, .length = 1000, .destination = 1},
                               Header{.kind = Kind::offer, .job = 6, .transfer = 2, .value = 1000, .destination = 1}})
    group.engine(1).on_frame({Stage::control, 0, 0}, header, 0, junk);
  group.settle();
  CHECK(got == sent);
  CHECK_EQ(group.engine(1).statistics().duplicates_dropped, std::uint64_t{2});
  CHECK_EQ(group.engine(1).statistics().foreign_dropped, std::uint64_t{1});
  for (std::size_t i = before; i < group.seen.size(); ++i)
    CHECK(group.seen[i].kind == Kind::ack || group.seen[i].kind == Kind::probe);
}

TEST(a_canceled_operation_ends_on_both_sides) {
  for (const std::size_t bytes : {50, 5000}) {
    for (const bool by_sender : {true, false}) {
      check::context() = std::to_string(bytes) + (by_sender ? " bytes, sender" : " bytes, receiver");
      Group group(grid(2, 2, 2), kSmall);
      std::vector<std::byte> got(bytes), sent = noise(bytes, 2);
      group.engine(0).send(1, 3, 5, sent, 0);
      if (bytes > 100) {
        group.engine(3).receive(2, 0, 5, got, 0);
        group.round();
        group.round();
      }
      if (by_sender) {
        group.engine(0).cancel(1, "timed out");
        CHECK(group.outcome(1).kind == Outcome::Kind::aborted && group.outcome(1).what == "timed out");
      } else {
        if (bytes <= 100) group.engine(3).receive(2, 1, 5, got, 0);
        group.engine(3).cancel(2, "timed out");
      }
      group.settle();
      if (bytes > 100) {
        CHECK(group.outcome(1).kind == Outcome::Kind::aborted);
        CHECK(group.outcome(2).kind == Outcome::Kind::aborted);
      } else if (by_sender) {
        group.engine(3).receive(3, 0, 5, got, 0);
        CHECK(group.outcome(3).kind == Outcome::Kind::aborted);
        CHECK(group.outcome(3).what.find("aborted by rank 0") != std::string::npos);
      }
      // The next message of the pair is not disturbed.
      group.engine(0).send(11, 3, 6, sent, 0);
      group.engine(3).receive(12, 0, 6, got, 0);
      group.settle();
      CHECK(group.outcome(12).kind == Outcome::Kind::done && got == sent);
      CHECK_EQ(group.held(), std::size_t{0});
    }
  }
}

TEST(a_lost_rank_ends_everything_everywhere_and_at_once) {
  Group group(grid(2, 2, 2), kSmall);
  std::vector<std::byte> got(5000), sent = noise(5000, 2), other(10);
  group.engine(0).send(1, 3, 5, sent, 0);     // nobody receives it
  group.engine(1).receive(2, 3, 5, got, 0);   // nobody sends it
  group.engine(2).receive(3, any_source, 5, other, 0);
  group.settle();
  group.die(3);
  group.settle();
  for (const Operation operation : {1, 2, 3}) {
    CHECK(group.outcome(operation).kind == Outcome::Kind::peer_lost);
    CHECK(group.outcome(operation).what.starts_with("rank 3 "));
  }
  CHECK(group.outcome(1).what.find("transfer 1") != std::string::npos);
  CHECK(group.outcome(1).what.find("rail 0") != std::string::npos);
  group.engine(0).send(4, 1, 0, sent, 0);
  CHECK(group.outcome(4).kind == Outcome::Kind::peer_lost && group.outcome(4).what.starts_with("rank 3 "));
  for (const int rank : {0, 1, 2}) CHECK(group.engine(rank).idle());
}

TEST(the_first_cause_is_passed_on) {
  Group group(grid(2, 2, 2), kSmall);
  std::vector<std::byte> got(10);
  group.engine(0).receive(1, 2, 5, got, 0);
  group.engine(3).lose(1, "killed");
  group.settle();
  CHECK(group.outcome(1).what.starts_with("rank 1 is lost: killed"));
  group.engine(0).on_link_broken({Stage::control, 3, 0}, "it left because of that");
  group.engine(0).receive(2, 2, 5, got, 0);
  CHECK(group.outcome(2).what.starts_with("rank 1 is lost: killed"));
}

TEST(a_rail_that_breaks_gives_its_chunks_to_the_others) {
  EngineOptions narrow = kSmall;
  narrow.message_window = 20'000;
  Group group(grid(2, 4, 4), narrow);
  std::vector<std::byte> got(300'000), sent = noise(300'000, 9);
  group.engine(1).receive(1, 6, 0, got, 0);
  group.engine(6).send(2, 1, 0, sent, 0);
  for (int i = 0; i < 8; ++i) group.round();
  group.engine(7).on_link_broken({Stage::rail, 3, 3}, "gone");  // a neighbour's
  group.engine(3).on_link_broken({Stage::rail, 7, 3}, "gone");
  for (int i = 0; i < 8; ++i) group.round();
  group.engine(6).on_link_broken({Stage::rail, 2, 2}, "gone");  // its own
  group.engine(2).on_link_broken({Stage::rail, 6, 2}, "gone");
  const std::size_t before = group.seen.size();
  group.settle();
  CHECK(group.outcome(1).kind == Outcome::Kind::done && group.outcome(2).kind == Outcome::Kind::done);
  CHECK(got == sent);
  std::size_t chunks = 0, wrong = 0;
  for (std::size_t i = before + 40; i < group.seen.size(); ++i) {  // what was under way is past
    const bool crosses = group.seen[i].kind == Kind::chunk && group.seen[i].hop != 0;
    chunks += crosses;
    wrong += crosses && group.seen[i].rail >= 2;
  }
  CHECK(chunks > 100);
  CHECK_EQ(wrong, std::size_t{0});
  CHECK_EQ(group.held(), std::size_t{0});
}

// What one end of a rail tells the other goes over the other rails, and means the same there.
TEST(a_silent_control_link_is_replaced_by_rails) {
  Group group(grid(2, 2, 2), kSmall);
  group.lose = [](Link link, const Header&) { return link.stage == Stage::control; };
  std::vector<std::byte> got(5000), sent = noise(5000, 9);
  group.engine(0).receive(1, 3, 0, got, 0);
  group.engine(3).send(2, 0, 0, sent, 0);
  group.settle(2000);
  CHECK(group.outcome(1).kind == Outcome::Kind::done && got == sent);
  group.engine(3).on_link_broken({Stage::rail, 1, 1}, "gone");
  group.settle(2000);
  for (const int rank : {1, 3}) {
    const std::pair<int, Link> wanted{rank, {Stage::rail, 4 - rank, 1}};
    CHECK_EQ(std::count(group.resets.begin(), group.resets.end(), wanted), 1);
  }
  for (const int rank : {0, 2}) CHECK(group.engine(rank).statistics().rails.at(0).up);
  for (int rank = 0; rank < 4; ++rank) CHECK(group.engine(rank).idle());
}

TEST(what_no_engine_can_do_is_refused) {
  Group group(grid(2, 2, 2), kSmall);
  std::vector<std::byte> got(10);
  CHECK_THROWS(hetsp::InvalidArgument, "rank 4 is no peer of rank 0", group.engine(0).send(1, 4, 0, got, 0));
  CHECK_THROWS(hetsp::InvalidArgument, "rank 0 is no peer", group.engine(0).receive(1, 0, 0, got, 0));
  CHECK_THROWS(hetsp::InvalidArgument, "rank -1 is no peer", group.engine(0).send(1, any_source, 0, got, 0));
  group.engine(0).receive(1, 2, 0, got, 0);
  CHECK_THROWS(hetsp::InvalidArgument, "operation 1 is 0 or open", group.engine(0).receive(1, 2, 0, got, 0));
}

TEST_MAIN()
