// The links of a cluster, as a group of ranks crosses them.
#pragma once

#include <cstdint>

namespace hetsp::planner {

struct LinkTier {
  double bytes_per_second = 0.0;  // one direction
  double start_seconds = 0.0;     // of a message or a collective
  friend bool operator==(const LinkTier&, const LinkTier&) = default;
};

// Ranks of a node reach each other over links of their own; other nodes over the node's NICs, which its ranks share.
struct Network {
  LinkTier intra_node;           // of one rank
  LinkTier inter_node;           // of one NIC
  std::int32_t nics_per_node = 0;  // 0: as many as ranks
  friend bool operator==(const Network&, const Network&) = default;
};

// Throws InvalidArgument naming the field that is out of range.
void check(const Network& network);

// A group of `degree` ranks with neighbouring numbers, its first rank on a node's first: floor(degree / ranks_per_node) whole
// nodes and the remainder on one more. Others may use the rest of that node, so its NICs are shared by all its ranks.
// ranks_per_node 0: all ranks on one node.
struct Crossing {
  Crossing(const Network& links, int group_degree, int node_ranks);

  // Seconds per byte that a rank sends in all, in equal parts to all others: intra and inter traffic run side by side.
  [[nodiscard]] double all_to_all() const;
  // Seconds per byte of one hop of a ring whose every rank sends to the one `stride` further (Ulysses groups of `stride`
  // ranks inside): where that leaves the node, min(stride, ranks of a node) ranks of each node do at once, over as many
  // NICs as there are. Stride 1 is a plain ring over one NIC a node.
  [[nodiscard]] double ring_hop(int stride = 1) const;
  // Seconds per byte that a rank receives in an all-gather: rings over all NICs that the group's share of a node has.
  [[nodiscard]] double all_gather() const;
  [[nodiscard]] double start_seconds() const;  // of the slowest tier that is crossed

  const Network& network;
  int degree, ranks_per_node, nics;

 private:
  [[nodiscard]] bool leaves_node() const { return degree > ranks_per_node; }
};

}  // namespace hetsp::planner
