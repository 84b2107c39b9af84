// What a rank may hold for others is bounded, whatever the size and number of messages: by the windows of its connections, the
// credit it has given, and the window of messages that nobody has asked for yet.
#include <cstdio>

#include "comm/virtual_group.h"
#include "support/check.h"

using namespace virtual_network;

namespace {

constexpr std::size_t kMb = 1'000'000, kChunk = 256 * 1024;

struct Peak {
  std::size_t held = 0, backlog = 0;  // bytes, of the worst rank: arrivals not released; frames that wait for a wire
};

Peak peak(Group& group, Time limit) {
  Peak peak;
  const Time end = group.clock.now() + limit;
  while (!group.settled() && group.clock.now() < end) {
    group.clock.run(group.clock.now() + 2 * kMs, [&] { return group.settled(); });
    for (int rank = 0; rank < group.topology().ranks(); ++rank) {
      peak.held = std::max(peak.held, group.process(rank).most_held);
      peak.backlog = std::max(peak.backlog, group.backlog(rank));
    }
  }
  CHECK(group.settled());
  for (const Message& message : group.messages) CHECK(message.in == message.expected);
  return peak;
}

void report(const char* what, const Peak& peak) {
  std::printf("     %s: %.1f chunks held, %.1f chunks before a wire\n", what, static_cast<double>(peak.held) / kChunk,
              static_cast<double>(peak.backlog) / kChunk);
}

}  // namespace

TEST(relays_hold_what_was_granted_whatever_the_size_of_the_message) {
  for (const std::size_t size : {16 * kMb, 128 * kMb}) {
    Group group({}, 1);
    group.nic(0, 2).rate = 1e6;  // a rail that drains slowly
    group.pass(10 * kMs);
    group.exchange(0, 4, 0, size);
    const Peak worst = peak(group, 20 * kSecond);
    report(size == 16 * kMb ? "16 MB" : "128 MB", worst);
    CHECK(worst.held <= 8 * kChunk);
    CHECK(worst.backlog <= 16 * kChunk);
  }
}

TEST(a_rank_that_does_not_run_is_not_flooded) {
  for (int rank = 0; rank < 8; ++rank) {
    check::context() = "rank " + std::to_string(rank);
    Group group({}, 2);
    group.pass(10 * kMs);
    for (int i = 0; i < 4; ++i) group.exchange(i, 4, 0, 32 * kMb);
    group.clock.after(50 * kMs, [&] { group.process(rank).stopped_until = group.clock.now() + kSecond; });
    const Peak worst = peak(group, 20 * kSecond);
    // Seven connections bring chunks; each has eight frames waiting when the rank awakes, and eight more before it runs again.
    CHECK(worst.held <= 2 * 8 * 7 * kChunk);
    if (rank == 4) report("the destination stands still", worst);
  }
}

TEST(small_messages_that_nobody_receives_yet_wait_at_their_source) {
  GroupOptions options;
  Group group(options, 3);
  group.pass(10 * kMs);
  std::vector<Message*> messages;
  for (int i = 0; i < 2000; ++i) group.post_send(*messages.emplace_back(&group.message(0, 4, 0, 30'000)));
  group.pass(2 * kSecond);
  std::size_t arrived = 0;
  for (const RailStatistics& rail : group.engine(4).statistics().rails) arrived += rail.bytes_received;
  CHECK(arrived <= options.engine.eager_window + 8 * kChunk);  // of 60 MB
  for (Message* message : messages) group.post_receive(*message);
  report("2000 small messages", peak(group, 20 * kSecond));
}

TEST_MAIN()
