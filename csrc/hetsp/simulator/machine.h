// The links of a described cluster as a list of resources that traffic shares.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/network.h"

namespace hetsp::simulator {

using planner::Network;

// Every rank has a link into its node, in both directions, and every NIC of a node a link to the others. Rank r uses the NIC
// of its place in the node, as GPUs and NICs are paired by the PCIe tree: floor(place * NICs / ranks of a node).
struct Machine {
  std::int32_t ranks = 1;
  std::int32_t ranks_per_node = 0;  // 0: all on one node
  Network network;

  [[nodiscard]] int node_size() const { return ranks_per_node > 0 ? ranks_per_node : ranks; }
  [[nodiscard]] int node(int rank) const { return rank / node_size(); }
  [[nodiscard]] int nodes() const { return (ranks + node_size() - 1) / node_size(); }
  [[nodiscard]] int nics() const { return network.nics_per_node > 0 ? network.nics_per_node : node_size(); }
  [[nodiscard]] int nic(int rank) const;  // of its node

  // Resources: 2 of each rank, then 2 of each NIC.
  enum Direction { out, in };
  [[nodiscard]] int rank_link(int rank, Direction direction) const { return 2 * rank + direction; }
  [[nodiscard]] int nic_link(int node, int nic, Direction direction) const {
    return 2 * ranks + 2 * (node * nics() + nic) + direction;
  }
  [[nodiscard]] int resources() const { return 2 * ranks + 2 * nodes() * nics(); }
  [[nodiscard]] std::vector<double> capacities() const;  // [resources] bytes/s
};

// So many ranks on the network of the cost model; a table's has links that no message loads.
[[nodiscard]] Machine machine_of(const planner::CostModel& cost, std::int32_t ranks, std::int32_t ranks_per_node);

// Throws InvalidArgument naming the field that is out of range.
void check(const Machine& machine);

}  // namespace hetsp::simulator
