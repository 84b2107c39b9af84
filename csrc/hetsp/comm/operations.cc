#include "hetsp/comm/operations.h"

#include "hetsp/base/error.h"

namespace hetsp::comm {

void Operations::begin(Operation operation, bool sending, int peer, Time now) {
  require(operation != 0 && !open_.contains(operation), "operation ", operation, " is 0 or open already");
  require_peer(peer, sending);
  open_.emplace(operation, Open{.sending = sending, .peer = peer, .since = now});
}

void Operations::require_peer(int peer, bool sending) const {
  const bool allowed = (peer == any_source && !sending) || (peer >= 0 && peer < topology_.ranks() && peer != rank_);
  require(allowed, "rank ", peer, " is no peer of rank ", rank_, " in a group of ", topology_.ranks());
}

void Operations::complete(Operation operation, const Outcome& outcome) {
  if (open_.erase(operation) > 0) transport_.complete(operation, outcome);
}

Operations::Open* Operations::find(Operation operation) {
  const auto found = open_.find(operation);
  return found == open_.end() ? nullptr : &found->second;
}

std::vector<Operation> Operations::all() const {
  std::vector<Operation> names;
  for (const auto& [operation, _] : open_) names.push_back(operation);
  return names;
}

std::string Operations::describe(const Open& operation, int rail) const {
  std::string text = operation.sending              ? concat("sending to rank ", operation.peer)
                     : operation.peer == any_source ? std::string("receiving from any rank")
                                                    : concat("receiving from rank ", operation.peer);
  if (operation.peer == any_source) return text;
  text += operation.transfer != 0 ? concat(", transfer ", operation.transfer) : std::string(", no transfer begun");
  if (topology_.same_node(rank_, operation.peer)) return text + ", inside the node";
  const int home = routes_.home(topology_.node_of(operation.peer));
  return text + concat(", rail ", rail >= 0 ? rail : home);
}

Outcome Operations::peer_lost(const std::string& text, Operation operation, int rail) const {
  const auto known = open_.find(operation);
  return {Outcome::Kind::peer_lost, known == open_.end() ? text : concat(text, " (", describe(known->second, rail), ")")};
}

}  // namespace hetsp::comm
