#include "hetsp/simulator/machine.h"

#include <set>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::simulator;

namespace {

const Network kLinks{.intra_node = {100.0, 0.0}, .inter_node = {10.0, 0.0}, .nics_per_node = 2};

}  // namespace

TEST(ranks_share_the_nics_of_their_node_evenly) {
  const Machine machine{8, 4, kLinks};
  CHECK_EQ(machine.nodes(), 2);
  for (const auto& [rank, nic] : {std::pair{0, 0}, {1, 0}, {2, 1}, {3, 1}, {4, 0}, {7, 1}}) CHECK_EQ(machine.nic(rank), nic);
  Machine plenty = machine;
  plenty.network.nics_per_node = 8;  // more NICs than ranks: every second one stays without a rank
  for (int rank = 0; rank < 4; ++rank) CHECK_EQ(plenty.nic(rank), 2 * rank);
  plenty.network.nics_per_node = 0;  // one each
  for (int rank = 0; rank < 4; ++rank) CHECK_EQ(plenty.nic(rank), rank);
}

TEST(every_link_is_a_resource_of_its_own) {
  const Machine machine{6, 4, kLinks};
  std::set<int> seen;
  for (const auto direction : {Machine::out, Machine::in}) {
    for (int rank = 0; rank < 6; ++rank) seen.insert(machine.rank_link(rank, direction));
    for (int node = 0; node < 2; ++node) {
      for (int nic = 0; nic < 2; ++nic) seen.insert(machine.nic_link(node, nic, direction));
    }
  }
  CHECK_EQ(static_cast<int>(seen.size()), machine.resources());
  CHECK_EQ(*seen.rbegin(), machine.resources() - 1);
  const auto capacities = machine.capacities();
  CHECK_EQ(capacities[machine.rank_link(5, Machine::in)], 100.0);
  CHECK_EQ(capacities[machine.nic_link(0, 0, Machine::out)], 10.0);
}

TEST(bad_machines_are_named) {
  CHECK_THROWS(InvalidArgument, "ranks is 0", (simulator::check(Machine{0, 4, kLinks}), 0));
  CHECK_THROWS(InvalidArgument, "ranks_per_node is -1", (simulator::check(Machine{1, -1, kLinks}), 0));
  CHECK_THROWS(InvalidArgument, "bytes_per_second is 0", (simulator::check(Machine{}), 0));
}

TEST(a_cost_model_brings_its_network) {
  const Network network{.intra_node = {2.0, 0.0}, .inter_node = {1.0, 0.0}, .nics_per_node = 2};
  planner::CostModel cost;
  CHECK(machine_of(cost, 8, 4).resources() == 2 * 8 + 2 * 2 * 4);
  planner::check(machine_of(cost, 8, 4).network);  // a table's
  cost.network = network;
  CHECK(machine_of(cost, 8, 4).network == network);
  CHECK_EQ(machine_of(cost, 8, 4).nodes(), 2);
}

TEST_MAIN()
