#include "hetsp/simulator/bundle.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

namespace hetsp::simulator {

namespace {

class Loads {
 public:
  Loads(const Machine& machine, Routing routing) : machine_(machine), routing_(routing) {}

  void message(int from, int to) {
    if (machine_.node(from) == machine_.node(to)) {
      add(machine_.rank_link(from, Machine::out), 1.0);
      add(machine_.rank_link(to, Machine::in), 1.0);
      return;
    }
    leaves_ = true;
    if (routing_ == Routing::own_nic) {
      add(machine_.nic_link(machine_.node(from), machine_.nic(from), Machine::out), 1.0);
      add(machine_.nic_link(machine_.node(to), machine_.nic(to), Machine::in), 1.0);
      return;
    }
    spread(from, Machine::out);
    spread(to, Machine::in);
  }

  // One part over each NIC; what does not leave over the rank's own NIC goes through the rank beside it that has the NIC.
  void spread(int rank, Machine::Direction direction) {
    const int node = machine_.node(rank), nics = machine_.nics();
    const auto inverse = direction == Machine::out ? Machine::in : Machine::out;
    for (int nic = 0; nic < nics; ++nic) {
      add(machine_.nic_link(node, nic, direction), 1.0 / nics);
      if (nic == machine_.nic(rank)) continue;
      const int proxy =
          std::min(node * machine_.node_size() + (nic * machine_.node_size() + nics - 1) / nics, machine_.ranks - 1);
      if (proxy == rank) continue;  // more NICs than ranks: several are a rank's own
      add(machine_.rank_link(rank, direction), 1.0 / nics);
      add(machine_.rank_link(proxy, inverse), 1.0 / nics);
    }
  }

  void add(int resource, double weight) { loads_[resource] += weight; }

  [[nodiscard]] Bundle bundle(double bytes) const {
    Bundle result{.bytes = bytes,
                  .start_seconds =
                      leaves_ ? std::max(machine_.network.intra_node.start_seconds, machine_.network.inter_node.start_seconds)
                              : machine_.network.intra_node.start_seconds,
                  .uses = {}};
    for (const auto& [resource, weight] : loads_) result.uses.push_back({resource, weight});
    return result;
  }
  [[nodiscard]] bool empty() const { return loads_.empty(); }
  void set_leaves() { leaves_ = true; }

 private:
  const Machine& machine_;
  Routing routing_;
  bool leaves_ = false;
  std::map<int, double> loads_;
};

}  // namespace

Bundle ring_hop(const Machine& machine, std::span<const int> ranks, int stride, double bytes, Routing routing) {
  Loads loads(machine, routing);
  for (std::size_t i = 0; i < ranks.size(); ++i) loads.message(ranks[i], ranks[(i + stride) % ranks.size()]);
  return loads.bundle(bytes);
}

std::vector<Bundle> all_to_all(const Machine& machine, std::span<const int> ranks, int size, double bytes, Routing routing) {
  Loads inside(machine, routing), outside(machine, routing);
  for (std::size_t first = 0; first < ranks.size(); first += size) {
    const auto run = ranks.subspan(first, size);
    for (const int from : run) {
      for (const int to : run) {
        if (from != to) (machine.node(from) == machine.node(to) ? inside : outside).message(from, to);
      }
    }
  }
  std::vector<Bundle> result;
  if (!inside.empty()) result.push_back(inside.bundle(bytes));
  if (!outside.empty()) result.push_back(outside.bundle(bytes));
  return result;
}

Bundle all_gather(const Machine& machine, std::span<const int> ranks, double bytes) {
  Loads loads(machine, Routing::own_nic);
  std::map<int, std::set<int>> nics;  // of each node
  for (const int rank : ranks) nics[machine.node(rank)].insert(machine.nic(rank));
  for (const int rank : ranks) {
    loads.add(machine.rank_link(rank, Machine::out), 1.0);
    loads.add(machine.rank_link(rank, Machine::in), 1.0);
  }
  if (nics.size() > 1) {
    loads.set_leaves();
    for (const auto& [node, used] : nics) {
      for (const int nic : used) {
        loads.add(machine.nic_link(node, nic, Machine::out), 1.0 / static_cast<double>(used.size()));
        loads.add(machine.nic_link(node, nic, Machine::in), 1.0 / static_cast<double>(used.size()));
      }
    }
  }
  return loads.bundle(bytes);
}

}  // namespace hetsp::simulator
