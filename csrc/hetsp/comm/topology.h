// Which ranks live on which node, which NICs a node has, and the rails that NICs form between two nodes.
#pragma once

#include <string>
#include <vector>

namespace hetsp::comm {

// A network interface of a node, as the node itself names it.
struct Nic {
  std::string name;     // "eth0"
  std::string address;  // numeric, as other nodes reach it
  double rate = 0;      // bytes/s; 0: not known
};

// A machine, or a network namespace of one.
struct Node {
  std::vector<int> ranks;  // of the group, in ascending order
  std::vector<Nic> nics;   // at least one where the group has several nodes
  std::string control;     // address for control messages; empty: the one towards the rendezvous
};

// The whole group. Rail k of two nodes joins their k-th NICs; two nodes have as many rails as the poorer one has NICs. A NIC is
// driven by one rank, its owner: the i-th rank of a node uses NIC i mod NICs, and NIC k is owned by the node's rank k mod
// ranks, so that with as many NICs as ranks everyone owns one, as a GPU and the NIC beside it (Zeppelin, arXiv 2509.21841,
// section 4).
class Topology {
 public:
  // Throws InvalidArgument naming the node where a rank is missing, doubled or out of range, or a node has no NIC though there
  // are several nodes.
  explicit Topology(std::vector<Node> nodes);

  int ranks() const;                                     // of the group
  int nodes() const;
  const Node& node(int index) const;
  int node_of(int rank) const;
  bool same_node(int a, int b) const;
  int rails(int node_a, int node_b) const;               // between two different nodes, at least 1
  int owner(int node, int nic) const;                    // the rank that drives it
  int home_rail(int rank, int other_node) const;         // the rail of the rank's own NIC towards that node

 private:
  std::vector<Node> nodes_;
  std::vector<int> node_of_;  // [ranks]
};

}  // namespace hetsp::comm
