// What routing is for, in virtual time: the sum of the NICs for one pair, and fairness for several.
#include <algorithm>
#include <cstdio>

#include "comm/virtual_group.h"
#include "support/check.h"

using namespace virtual_network;

namespace {

constexpr std::size_t kMb = 1'000'000;

double seconds(Time time) { return static_cast<double>(time) * 1e-9; }

void all_right(Group& group) {
  for (const Message& message : group.messages) {
    CHECK(message.sent && message.sent->kind == Outcome::Kind::done);
    CHECK(message.received && message.received->kind == Outcome::Kind::done);
    CHECK(message.in == message.expected);
  }
  for (const std::string& complaint : group.complaints) check::fail(__FILE__, __LINE__, complaint);
}

// bytes/s from posting to the last end.
double rate(Group& group, const std::vector<Message*>& messages) {
  CHECK(group.run(60 * kSecond));
  std::size_t bytes = 0;
  Time begin = messages[0]->posted, end = 0;
  for (const Message* message : messages) {
    bytes += message->expected.size();
    end = std::max({end, message->sent_at, message->received_at});
  }
  all_right(group);
  return static_cast<double>(bytes) / seconds(end - begin);
}

void report(const char* what, double rate, double sum) { std::printf("     %s: %.1f %% of the sum\n", what, 100 * rate / sum); }

}  // namespace

TEST(one_hot_pair_has_the_sum_of_the_nics) {
  for (const bool told : {true, false}) {
    Group group({.tell_rates = told}, 1);
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 64 * kMb);
    const double measured = rate(group, {&message});
    report(told ? "one pair" : "one pair, rates not told", measured, 200e6);
    CHECK(measured >= 0.95 * 200e6);
  }
}

TEST(one_to_four_flows_share_the_sum) {
  for (int flows = 1; flows <= 4; ++flows) {
    Group group({}, static_cast<std::uint64_t>(flows));
    group.pass(10 * kMs);
    std::vector<Message*> messages;
    for (int i = 0; i < flows; ++i) messages.push_back(&group.exchange(i, 4 + i, 0, 32 * kMb));
    const double measured = rate(group, messages);
    Time first = messages[0]->received_at, last = first;
    for (const Message* message : messages)
      first = std::min(first, message->received_at), last = std::max(last, message->received_at);
    report((std::to_string(flows) + " flows").c_str(), measured, 200e6);
    CHECK(measured >= 0.95 * 200e6);
    CHECK_NEAR(seconds(last - messages[0]->posted) / seconds(first - messages[0]->posted), 1.0, 0.1);
  }
}

// One of them is always first, and finds the NICs of the others idle.
TEST(equal_flows_that_begin_one_after_another_end_together) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    Group group({}, seed);
    group.pass(10 * kMs);
    const Time begin = group.clock.now();
    std::vector<Message*> messages;
    for (int i = 0; i < 4; ++i) {
      Message& message = group.message(i, 4 + i, 0, 32 * kMb);
      messages.push_back(&message);
      group.clock.after(group.dice.between(0, 2 * kMs), [&] { group.post_receive(message); });
      group.clock.after(group.dice.between(0, 2 * kMs), [&] { group.post_send(message); });
    }
    group.pass(2 * kMs);
    CHECK(rate(group, messages) >= 0.98 * 200e6);
    Time first = messages[0]->received_at, last = first;
    for (const Message* message : messages)
      first = std::min(first, message->received_at), last = std::max(last, message->received_at);
    CHECK(seconds(last - begin) <= 1.05 * seconds(first - begin));
    std::uint64_t relayed = 0;
    for (int rank = 0; rank < 8; ++rank) relayed += group.engine(rank).statistics().chunks_relayed;
    CHECK(relayed <= 4 * 32 * kMb / (256 * 1024) / 10);
  }
}

TEST(a_ring_with_two_crossings_has_both_directions_at_once) {
  Group group({}, 5);
  group.pass(10 * kMs);
  std::vector<Message*> messages;
  for (int i = 0; i < 8; ++i) messages.push_back(&group.exchange(i, (i + 1) % 8, 0, 16 * kMb));
  CHECK(group.run(60 * kSecond));
  all_right(group);
  Time end = 0;
  for (const Message* message : messages) end = std::max(end, message->received_at);
  const double measured = 16.0 * kMb / seconds(end - messages[0]->posted);
  report("each crossing of a ring", measured, 200e6);
  CHECK(measured >= 3.6 * 50e6);
}

TEST(a_nic_at_an_eighth_costs_what_it_lacks) {
  for (const bool told : {false, true}) {
    Group group({.tell_rates = told}, 6);
    group.nic(0, 2).rate = group.nic(1, 2).rate = 50e6 / 8;
    group.pass(10 * kMs);
    Message& message = group.exchange(1, 5, 0, 64 * kMb);
    const double measured = rate(group, {&message});
    report("one NIC at 1/8", measured, 156.25e6);
    CHECK(measured >= 0.9 * 156.25e6);
  }
}

TEST(a_nic_that_loses_packets_stalls_itself_alone) {
  std::vector<double> rates;
  for (std::uint64_t seed = 7; seed < 12; ++seed) {  // a stall of 200 ms near the end alone costs a sixth
    Group group({}, seed);
    group.nic(0, 2).stalls = group.nic(1, 2).stalls = 0.05;
    group.pass(10 * kMs);
    Message& message = group.exchange(0, 4, 0, 64 * kMb);
    rates.push_back(rate(group, {&message}));
  }
  std::sort(rates.begin(), rates.end());
  const double measured = rates[2];
  report("one NIC with stalls", measured, 200e6);
  CHECK(measured >= 0.9 * (150e6 + 50e6 * 314 / 384));
}

TEST(an_uneven_exchange_of_all_with_all_fills_the_bottleneck) {
  Group group({}, 8);
  group.pass(10 * kMs);
  std::vector<Message*> messages;
  std::size_t out = 0;
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) {
      if (i == j) continue;
      const std::size_t bytes = static_cast<std::size_t>((i * 5 + j * 3) % 7) * kMb * 3 / 2;
      messages.push_back(&group.exchange(i, j, 0, bytes));
      if (i < 4 && j >= 4) out += bytes;
    }
  CHECK(group.run(60 * kSecond));
  all_right(group);
  std::size_t in = 0;
  Time end = 0;
  for (const Message* message : messages) {
    if (message->source >= 4 && message->destination < 4) in += message->expected.size();
    end = std::max(end, message->received_at);
  }
  const double measured = static_cast<double>(std::max(in, out)) / seconds(end - messages[0]->posted);
  report("all with all", measured, 200e6);
  CHECK(measured >= 0.9 * 200e6);
}

TEST_MAIN()
