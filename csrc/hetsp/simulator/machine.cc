#include "hetsp/simulator/machine.h"

#include <cstddef>

#include "hetsp/base/error.h"

namespace hetsp::simulator {

int Machine::nic(int rank) const { return rank % node_size() * nics() / node_size(); }

std::vector<double> Machine::capacities() const {
  std::vector<double> result(static_cast<std::size_t>(resources()), network.inter_node.bytes_per_second);
  for (int link = 0; link < 2 * ranks; ++link) result[link] = network.intra_node.bytes_per_second;
  return result;
}

Machine machine_of(const planner::CostModel& cost, std::int32_t ranks, std::int32_t ranks_per_node) {
  return {ranks, ranks_per_node, cost.network.value_or(Network{{1.0, 0.0}, {1.0, 0.0}, 0})};
}

void check(const Machine& machine) {
  require(machine.ranks >= 1, "machine: ranks is ", machine.ranks, ", must be at least 1");
  require(machine.ranks_per_node >= 0, "machine: ranks_per_node is ", machine.ranks_per_node, ", must be at least 0");
  planner::check(machine.network);
}

}  // namespace hetsp::simulator
