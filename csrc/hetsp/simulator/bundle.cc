#include "hetsp/simulator/bundle.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace hetsp::simulator {

namespace {

enum class Leg { dispatch, transfer, combine };

class Loads {
 public:
  explicit Loads(const Machine& machine) : machine_(machine) {}

  void inside(int from, int to) {
    add(machine_.rank_link(from, Machine::out), 1.0);
    add(machine_.rank_link(to, Machine::in), 1.0);
  }

  void over_own_nics(int from, int to) {
    leaves_ = true;
    add(machine_.nic_link(machine_.node(from), machine_.nic(from), Machine::out), 1.0);
    add(machine_.nic_link(machine_.node(to), machine_.nic(to), Machine::in), 1.0);
  }

  void over_all_nics(int from, int to, Leg leg) {
    if (leg == Leg::dispatch) beside(from, Machine::out);
    if (leg == Leg::combine) beside(to, Machine::in);
    if (leg != Leg::transfer) return;
    leaves_ = true;
    for (int nic = 0; nic < machine_.nics(); ++nic) {
      add(machine_.nic_link(machine_.node(from), nic, Machine::out), 1.0 / machine_.nics());
      add(machine_.nic_link(machine_.node(to), nic, Machine::in), 1.0 / machine_.nics());
    }
  }

  // What does not cross over the rank's own NIC goes through the rank beside it that has the NIC.
  void beside(int rank, Machine::Direction direction) {
    const int node = machine_.node(rank), nics = machine_.nics();
    const auto inverse = direction == Machine::out ? Machine::in : Machine::out;
    for (int nic = 0; nic < nics; ++nic) {
      if (nic == machine_.nic(rank)) continue;
      const int place = (nic * machine_.node_size() + nics - 1) / nics;
      const int proxy = std::min(node * machine_.node_size() + place, machine_.ranks - 1);
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
  bool leaves_ = false;
  std::map<int, double> loads_;
};

}  // namespace

std::vector<Bundle> ring_hop(const Machine& machine, std::span<const int> ranks, int stride, double bytes, Routing routing) {
  const bool in_turn = routing == Routing::all_nics_in_turn;
  std::vector<Bundle> result;
  std::optional<Loads> loads(machine);
  const auto add_leg = [&] {
    if (!loads->empty()) result.push_back(loads->bundle(bytes));
    loads.emplace(machine);
  };
  for (const Leg leg : {Leg::dispatch, Leg::transfer, Leg::combine}) {
    for (std::size_t i = 0; i < ranks.size(); ++i) {
      const int from = ranks[i], to = ranks[(i + stride) % ranks.size()];
      const bool inside = machine.node(from) == machine.node(to), own = routing == Routing::own_nic;
      if (inside && leg == Leg::transfer) loads->inside(from, to);
      if (!inside && own && leg == Leg::transfer) loads->over_own_nics(from, to);
      if (!inside && !own) loads->over_all_nics(from, to, leg);
    }
    if (in_turn) add_leg();
  }
  if (!in_turn) add_leg();
  return result;
}

std::vector<Bundle> all_to_all(const Machine& machine, std::span<const int> ranks, int size, double bytes) {
  Loads inside(machine), outside(machine);
  for (std::size_t first = 0; first < ranks.size(); first += size) {
    const auto run = ranks.subspan(first, size);
    for (const int from : run) {
      for (const int to : run) {
        if (from == to) continue;
        machine.node(from) == machine.node(to) ? inside.inside(from, to) : outside.over_own_nics(from, to);
      }
    }
  }
  std::vector<Bundle> result;
  if (!inside.empty()) result.push_back(inside.bundle(bytes));
  if (!outside.empty()) result.push_back(outside.bundle(bytes));
  return result;
}

Bundle all_gather(const Machine& machine, std::span<const int> ranks, double bytes) {
  Loads loads(machine);
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
