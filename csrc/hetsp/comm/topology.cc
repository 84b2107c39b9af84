#include "hetsp/comm/topology.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::comm {

Topology::Topology(std::vector<Node> nodes) : nodes_(std::move(nodes)) {
  std::size_t count = 0;
  for (const Node& node : nodes_) count += node.ranks.size();
  require(count > 0, "the topology has no ranks");
  require(count <= 65536, "the topology has ", count, " ranks, the limit is 65536");
  node_of_.assign(count, -1);
  for (std::size_t n = 0; n < nodes_.size(); ++n) {
    const Node& node = nodes_[n];
    require(!node.ranks.empty(), "node ", n, " has no ranks");
    for (const int rank : node.ranks) {
      require(rank >= 0 && static_cast<std::size_t>(rank) < count, "node ", n, " has rank ", rank, ", allowed are 0 to ",
              count - 1);
      int& home = node_of_[static_cast<std::size_t>(rank)];
      require(home < 0, "rank ", rank, " is on node ", home, " and on node ", n);
      home = static_cast<int>(n);
    }
    require(std::is_sorted(node.ranks.begin(), node.ranks.end()), "the ranks of node ", n, " are not in ascending order");
    require(nodes_.size() == 1 || !node.nics.empty(), "node ", n, " has no NIC, but there are ", nodes_.size(), " nodes");
    require(node.nics.size() <= 65536, "node ", n, " has ", node.nics.size(), " NICs, the limit is 65536");
    for (const Nic& nic : node.nics)
      require(nic.rate >= 0 && nic.rate < 1e18, "NIC ", nic.name, " of node ", n, " has rate ", nic.rate,
              " bytes/s, allowed are 0 to 1e18");
  }
}

int Topology::ranks() const { return static_cast<int>(node_of_.size()); }

int Topology::nodes() const { return static_cast<int>(nodes_.size()); }

const Node& Topology::node(int index) const { return nodes_.at(static_cast<std::size_t>(index)); }

int Topology::node_of(int rank) const { return node_of_.at(static_cast<std::size_t>(rank)); }

bool Topology::same_node(int a, int b) const { return node_of(a) == node_of(b); }

int Topology::rails(int node_a, int node_b) const {
  return static_cast<int>(std::min(node(node_a).nics.size(), node(node_b).nics.size()));
}

int Topology::owner(int node, int nic) const {
  const Node& home = this->node(node);
  require(nic >= 0 && static_cast<std::size_t>(nic) < home.nics.size(), "node ", node, " has no NIC ", nic);
  return home.ranks[static_cast<std::size_t>(nic) % home.ranks.size()];
}

int Topology::home_rail(int rank, int other_node) const {
  const int node = node_of(rank);
  const std::vector<int>& ranks = this->node(node).ranks;
  const auto place = std::lower_bound(ranks.begin(), ranks.end(), rank) - ranks.begin();
  return static_cast<int>(place) % rails(node, other_node);
}

}  // namespace hetsp::comm
