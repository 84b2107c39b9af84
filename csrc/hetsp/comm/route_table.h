// The way of a frame. A chunk from s to d over rail k goes s -> owner of k on s's node -> owner of k on d's node -> d, with
// empty hops left out (Zeppelin's dispatch, transfer and combine, arXiv 2509.21841, section 4). A small frame takes the control
// link, or rails where that is silent; an eager message takes its rank's own rail first. What this rank knows of rails it does
// not own it was told by their owners.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/comm/topology.h"
#include "hetsp/comm/transport.h"

namespace hetsp::comm {

class RouteTable {
 public:
  RouteTable(const Topology& topology, int rank);

  [[nodiscard]] bool owns(int node, int rail) const { return owner(rail) == rank_ && rail < topology_.rails(node_, node); }
  [[nodiscard]] int owner(int rail) const { return topology_.owner(node_, rail); }  // on this rank's node
  [[nodiscard]] int home(int node) const { return topology_.home_rail(rank_, node); }
  // The rail that a rank of this node calls its own.
  [[nodiscard]] int home_of(int rank, int node) const { return topology_.home_rail(rank, node); }

  void set_up(int node, int rail, bool up);  // a rail went down or came up
  void gone(int rank);  // left, or lost: nothing goes through it any more
  [[nodiscard]] bool up(int node, int rail) const;
  [[nodiscard]] bool reachable(int node) const;  // by a rail that lives, or may live again
  [[nodiscard]] bool is_gone(int rank) const { return gone_[static_cast<std::size_t>(rank)]; }

  // Next link of a frame for `destination` that crosses `rail`, seen from this rank.
  [[nodiscard]] Link hop(int destination, int rail) const;
  // Rails to a node that live, the own one first, then those that this rank owns.
  [[nodiscard]] std::vector<int> living(int node) const;

 private:
  const Topology& topology_;
  int rank_, node_;
  std::vector<std::vector<bool>> up_;  // [nodes][rails]
  std::vector<bool> gone_;  // [ranks]
};

}  // namespace hetsp::comm
