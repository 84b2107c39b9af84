#include "hetsp/comm/route_table.h"

#include <algorithm>

namespace hetsp::comm {

RouteTable::RouteTable(const Topology& topology, int rank)
    : topology_(topology),
      rank_(rank),
      node_(topology.node_of(rank)),
      up_(static_cast<std::size_t>(topology.nodes())),
      gone_(static_cast<std::size_t>(topology.ranks()), false) {
  // Until an owner says otherwise its rails are taken for up; one's own are down until they are connected.
  for (int node = 0; node < topology.nodes(); ++node) {
    if (node == node_) continue;
    auto& up = up_[static_cast<std::size_t>(node)];
    up.resize(static_cast<std::size_t>(topology.rails(node_, node)));
    for (std::size_t rail = 0; rail < up.size(); ++rail) up[rail] = !owns(node, static_cast<int>(rail));
  }
}

void RouteTable::set_up(int node, int rail, bool up) {
  up_[static_cast<std::size_t>(node)][static_cast<std::size_t>(rail)] = up;
}

void RouteTable::gone(int rank) { gone_[static_cast<std::size_t>(rank)] = true; }

bool RouteTable::up(int node, int rail) const {
  return up_[static_cast<std::size_t>(node)][static_cast<std::size_t>(rail)] && !is_gone(owner(rail)) &&
         !is_gone(topology_.owner(node, rail));
}

bool RouteTable::reachable(int node) const {
  for (int rail = 0; rail < topology_.rails(node_, node); ++rail)
    if (!is_gone(owner(rail)) && !is_gone(topology_.owner(node, rail))) return true;
  return false;
}

Link RouteTable::hop(int destination, int rail) const {
  if (topology_.same_node(rank_, destination)) return {Stage::local, destination, 0};
  if (owner(rail) != rank_) return {Stage::local, owner(rail), 0};
  return {Stage::rail, topology_.owner(topology_.node_of(destination), rail), rail};
}

std::vector<int> RouteTable::living(int node) const {
  std::vector<int> rails;
  for (int rail = 0; rail < topology_.rails(node_, node); ++rail)
    if (up(node, rail)) rails.push_back(rail);
  std::stable_sort(rails.begin(), rails.end(), [&](int a, int b) {
    const auto order = [&](int rail) { return rail == home(node) ? 0 : owns(node, rail) ? 1 : 2; };
    return order(a) < order(b);
  });
  return rails;
}

}  // namespace hetsp::comm
