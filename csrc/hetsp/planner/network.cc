#include "hetsp/planner/network.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"

namespace hetsp::planner {

void check(const Network& network) {
  const auto tier = [](const char* name, const LinkTier& link) {
    require(std::isfinite(link.bytes_per_second) && link.bytes_per_second > 0.0, "network: ", name, " bytes_per_second is ",
            link.bytes_per_second, ", must be finite and above 0");
    require(std::isfinite(link.start_seconds) && link.start_seconds >= 0.0, "network: ", name, " start_seconds is ",
            link.start_seconds, ", must be finite and at least 0");
  };
  tier("intra_node", network.intra_node);
  tier("inter_node", network.inter_node);
  require(network.nics_per_node >= 0, "network: nics_per_node is ", network.nics_per_node, ", must be at least 0");
}

Crossing::Crossing(const Network& links, int group_degree, int node_ranks)
    : network(links), degree(group_degree), ranks_per_node(node_ranks > 0 ? node_ranks : group_degree) {
  require(degree >= 1, "network: degree is ", degree, ", must be at least 1");
  nics = links.nics_per_node > 0 ? links.nics_per_node : ranks_per_node;
}

double Crossing::all_to_all() const {
  if (degree == 1) return 0.0;
  const double part = 1.0 / (degree - 1);  // of a rank's bytes, to each other rank
  const double inside = part * (std::min(degree, ranks_per_node) - 1) / network.intra_node.bytes_per_second;
  if (!leaves_node()) return inside;
  const int rest = degree % ranks_per_node;  // ranks on the last node: they have the fewest peers beside them
  const int peers_outside = degree - (rest > 0 ? rest : ranks_per_node);
  const double share = std::min(1.0, static_cast<double>(nics) / ranks_per_node);  // of a NIC, for one rank
  return std::max(inside, part * peers_outside / (share * network.inter_node.bytes_per_second));
}

double Crossing::ring_hop(int stride) const {
  if (degree == 1) return 0.0;
  const double inside = 1.0 / network.intra_node.bytes_per_second;
  if (!leaves_node()) return inside;
  const double share = std::min(1.0, static_cast<double>(nics) / std::min(stride, ranks_per_node));
  return std::max(stride >= ranks_per_node ? 0.0 : inside, 1.0 / (share * network.inter_node.bytes_per_second));
}

double Crossing::all_gather() const {
  if (degree == 1) return 0.0;
  const double inside = 1.0 / network.intra_node.bytes_per_second;
  if (!leaves_node()) return inside;
  const int rest = degree % ranks_per_node;
  const double used = std::max(1.0, static_cast<double>(nics) * (rest > 0 ? rest : ranks_per_node) / ranks_per_node);
  return std::max(inside, 1.0 / (used * network.inter_node.bytes_per_second));
}

double Crossing::start_seconds() const {
  if (degree == 1) return 0.0;
  const LinkTier& inside = network.intra_node;
  return leaves_node() ? std::max(inside.start_seconds, network.inter_node.start_seconds) : inside.start_seconds;
}

}  // namespace hetsp::planner
