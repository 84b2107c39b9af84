#include "hetsp/comm/matcher.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/check.h"

using namespace hetsp::comm;

namespace {

Offered offer(int source, std::uint64_t transfer, std::int64_t tag) {
  return {.source = source, .transfer = transfer, .tag = tag};
}

Posted receive(Operation operation, int peer, std::int64_t tag) { return {.operation = operation, .peer = peer, .tag = tag}; }

}  // namespace

TEST(a_message_meets_the_receive_that_waits_and_the_other_way_round) {
  Matcher matcher(3);
  CHECK(!matcher.post(receive(10, 1, 5)));
  const auto met = matcher.arrive(offer(1, 1, 5));
  CHECK_EQ(met.size(), std::size_t{1});
  CHECK_EQ(met.at(0).second.operation, Operation{10});
  CHECK(matcher.arrive(offer(1, 2, 5)).empty());
  CHECK_EQ(matcher.post(receive(11, any_source, 5))->first.transfer, std::uint64_t{2});
  CHECK(!matcher.post(receive(12, 2, 5)));
  CHECK(matcher.arrive(offer(1, 3, 5)).empty());  // of another source
  CHECK(matcher.arrive(offer(2, 1, 6)).empty());  // of another tag
}

TEST(offers_are_put_back_into_order_and_counted_once) {
  Matcher matcher(2);
  matcher.post(receive(10, 1, 5));
  matcher.post(receive(11, 1, 5));
  CHECK(matcher.arrive(offer(1, 2, 5)).empty());
  CHECK(matcher.seen(1, 2) && !matcher.seen(1, 1));
  CHECK(matcher.arrive(offer(1, 2, 5)).empty());
  const auto met = matcher.arrive(offer(1, 1, 5));
  CHECK_EQ(met.size(), std::size_t{2});
  CHECK_EQ(met.at(0).first.transfer, std::uint64_t{1});
  CHECK_EQ(met.at(0).second.operation, Operation{10});
  CHECK_EQ(met.at(1).second.operation, Operation{11});
  CHECK(matcher.arrive(offer(1, 1, 5)).empty());
}

TEST(a_canceled_message_is_met_as_such) {
  Matcher matcher(2);
  matcher.arrive(offer(1, 1, 5));
  matcher.arrive(offer(1, 3, 5));  // before its turn
  matcher.cancel(1, 1);
  matcher.cancel(1, 3);
  CHECK(matcher.post(receive(10, 1, 5))->first.canceled);
  matcher.arrive(offer(1, 2, 5));
  CHECK(!matcher.post(receive(11, 1, 5))->first.canceled);
  CHECK(matcher.post(receive(12, 1, 5))->first.canceled);
}

TEST(receives_are_withdrawn) {
  Matcher matcher(3);
  matcher.post(receive(10, 1, 5));
  matcher.post(receive(11, 2, 5));
  matcher.post(receive(12, 1, 6));
  CHECK_EQ(matcher.withdraw(11)->peer, 2);
  CHECK(!matcher.withdraw(11));
  CHECK_EQ(matcher.withdraw_from(1).size(), std::size_t{2});
  CHECK(matcher.empty());
  matcher.post(receive(13, any_source, 7));
  CHECK_EQ(matcher.withdraw_all().size(), std::size_t{1});
  CHECK(matcher.arrive(offer(1, 1, 5)).empty());
}

// Against a list of everything posted: each message of a pair and tag meets the receives of that pair and tag in order, with
// offers that come in any order and twice.
TEST(random_orders_match_as_posted) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937 random(seed);
    const auto below = [&](unsigned bound) { return random() % bound; };
    Matcher matcher(3);
    std::map<std::pair<int, std::int64_t>, std::vector<std::uint64_t>> sent;
    std::map<std::pair<int, std::int64_t>, std::vector<Operation>> received;
    std::vector<Offered> offers;
    std::vector<Posted> receives;
    std::map<int, std::uint64_t> transfers;
    for (unsigned i = 0; i < 1 + below(40); ++i) {
      const int source = 1 + static_cast<int>(below(2));
      const std::int64_t tag = below(3);
      offers.push_back(offer(source, ++transfers[source], tag));
      sent[{source, tag}].push_back(transfers[source]);
      receives.push_back(receive(100 + i, source, tag));
    }
    std::shuffle(receives.begin(), receives.end(), random);
    for (const Posted& one : receives) received[{one.peer, one.tag}].push_back(one.operation);
    const std::size_t once = offers.size();
    for (unsigned i = 0; i < below(10); ++i) offers.push_back(offers[below(static_cast<unsigned>(once))]);
    std::shuffle(offers.begin(), offers.end(), random);
    std::map<std::uint64_t, Operation> met[3];
    const auto note = [&](const Matcher::Match& match) {
      CHECK(met[match.first.source].emplace(match.first.transfer, match.second.operation).second);
    };
    std::deque<Posted> posts(receives.begin(), receives.end());
    for (std::size_t next = 0; next < offers.size() || !posts.empty();) {
      if (next < offers.size() && (posts.empty() || below(2) == 0)) {
        for (const auto& match : matcher.arrive(offers[next])) note(match);
        ++next;
      } else {
        if (const auto match = matcher.post(posts.front())) note(*match);
        posts.pop_front();
      }
    }
    for (const auto& [key, messages] : sent)
      for (std::size_t i = 0; i < messages.size(); ++i) CHECK_EQ(met[key.first][messages[i]], received[key][i]);
    CHECK(matcher.empty());
  }
}

TEST_MAIN()
