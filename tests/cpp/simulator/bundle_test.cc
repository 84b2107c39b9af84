#include "hetsp/simulator/bundle.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "support/check.h"

using namespace hetsp::simulator;

namespace {

const Network kLinks{.intra_node = {100.0, 0.25}, .inter_node = {10.0, 0.5}, .nics_per_node = 2};
const Machine kMachine{8, 4, kLinks};

double weight(const Bundle& bundle, int resource) {
  double total = 0.0;
  for (const auto& use : bundle.uses) total += use.resource == resource ? use.weight : 0.0;
  return total;
}

std::vector<int> first_ranks(int count) {
  std::vector<int> ranks(count);
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

}  // namespace

TEST(a_ring_over_two_nodes_leaves_each_once) {
  const Bundle hop = ring_hop(kMachine, first_ranks(8), 1, 7.0, Routing::own_nic).front();
  CHECK_EQ(hop.bytes, 7.0);
  CHECK_EQ(hop.start_seconds, 0.5);
  CHECK_EQ(weight(hop, kMachine.rank_link(0, Machine::out)), 1.0);
  CHECK_EQ(weight(hop, kMachine.rank_link(3, Machine::out)), 0.0);  // it sends to the other node
  CHECK_EQ(weight(hop, kMachine.nic_link(0, 1, Machine::out)), 1.0);
  CHECK_EQ(weight(hop, kMachine.nic_link(1, 0, Machine::in)), 1.0);
  CHECK_EQ(weight(hop, kMachine.nic_link(1, 1, Machine::out)), 1.0);
  CHECK_EQ(weight(hop, kMachine.nic_link(0, 0, Machine::in)), 1.0);
  CHECK_EQ(weight(hop, kMachine.nic_link(0, 0, Machine::out)), 0.0);
  CHECK_EQ(ring_hop(kMachine, first_ranks(4), 1, 7.0, Routing::own_nic).front().start_seconds, 0.25);
}

TEST(routed_messages_take_every_nic_and_the_links_to_it) {
  const auto hops = ring_hop(kMachine, std::vector<int>{3, 4}, 1, 8.0, Routing::all_nics);
  CHECK_EQ(hops.size(), std::size_t{1});
  const Bundle& hop = hops.front();
  for (const int nic : {0, 1}) {
    CHECK_EQ(weight(hop, kMachine.nic_link(0, nic, Machine::out)), 0.5);
    CHECK_EQ(weight(hop, kMachine.nic_link(1, nic, Machine::in)), 0.5);
  }
  // Rank 3 has NIC 1: half its message goes to rank 0, which has NIC 0. Rank 4 gets half of it from rank 6.
  CHECK_EQ(weight(hop, kMachine.rank_link(3, Machine::out)), 0.5);
  CHECK_EQ(weight(hop, kMachine.rank_link(0, Machine::in)), 0.5);
  CHECK_EQ(weight(hop, kMachine.rank_link(6, Machine::out)), 0.5);
  CHECK_EQ(weight(hop, kMachine.rank_link(4, Machine::in)), 0.5);
}

TEST(legs_in_turn_are_the_pipeline_taken_apart) {
  const std::vector<int> ranks = first_ranks(8);
  const Bundle whole = ring_hop(kMachine, ranks, 1, 8.0, Routing::all_nics).front();
  const auto legs = ring_hop(kMachine, ranks, 1, 8.0, Routing::all_nics_in_turn);
  CHECK_EQ(legs.size(), std::size_t{3});
  for (int resource = 0; resource < kMachine.resources(); ++resource) {
    double total = 0.0;
    for (const auto& leg : legs) total += weight(leg, resource);
    CHECK_NEAR(total, weight(whole, resource), 1e-12);
  }
  CHECK_EQ(legs[0].start_seconds, 0.25);
  CHECK_EQ(legs[1].start_seconds, 0.5);
  CHECK_EQ(ring_hop(kMachine, first_ranks(4), 1, 8.0, Routing::all_nics_in_turn).size(), std::size_t{1});
}

TEST(all_to_all_counts_every_pair) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 40; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    std::vector<int> ranks = first_ranks(8);
    std::shuffle(ranks.begin(), ranks.end(), random);
    const int size = std::vector{1, 2, 4, 8}[random() % 4];
    ranks.resize(static_cast<std::size_t>(size) * (1 + random() % (8 / size)));
    std::map<int, double> expected;  // resource -> messages
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      for (std::size_t j = 0; j < ranks.size(); ++j) {
        if (i == j || i / size != j / size) continue;
        const int from = ranks[i], to = ranks[j];
        const bool inside = from / 4 == to / 4;
        expected[inside ? kMachine.rank_link(from, Machine::out) : kMachine.nic_link(from / 4, from % 4 / 2, Machine::out)] +=
            1;
        expected[inside ? kMachine.rank_link(to, Machine::in) : kMachine.nic_link(to / 4, to % 4 / 2, Machine::in)] += 1;
      }
    }
    const auto bundles = all_to_all(kMachine, ranks, size, 3.0);
    CHECK(bundles.size() <= 2);
    for (int resource = 0; resource < kMachine.resources(); ++resource) {
      double got = 0.0;
      for (const auto& bundle : bundles) got += weight(bundle, resource);
      CHECK_EQ(got, expected[resource]);
    }
  }
}

TEST(a_gather_uses_the_nics_of_its_ranks) {
  const Bundle whole = all_gather(kMachine, first_ranks(8), 5.0);
  CHECK_EQ(weight(whole, kMachine.nic_link(1, 1, Machine::in)), 0.5);
  CHECK_EQ(weight(whole, kMachine.rank_link(7, Machine::in)), 1.0);
  const Bundle part = all_gather(kMachine, std::vector<int>{2, 3, 4}, 5.0);
  CHECK_EQ(weight(part, kMachine.nic_link(0, 1, Machine::out)), 1.0);
  CHECK_EQ(weight(part, kMachine.nic_link(0, 0, Machine::out)), 0.0);
  CHECK_EQ(part.start_seconds, 0.5);
  CHECK_EQ(all_gather(kMachine, first_ranks(4), 5.0).start_seconds, 0.25);
}

TEST_MAIN()
