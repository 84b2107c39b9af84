#include "hetsp/comm/report.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"

namespace hetsp::comm {

std::string Report::progress(const Endpoint& endpoint, const Operations::Open& operation) {
  if (operation.transfer == 0) return "no message for it has come";
  if (!operation.sending) {
    const Incoming* message = endpoint.receiving.find(operation.peer, operation.transfer);
    return message == nullptr ? "it is over" : concat(message->chunks_stored(), " of ", message->chunks(), " chunks are here");
  }
  const Outgoing* message = endpoint.sending.find(operation.peer, operation.transfer);
  if (message == nullptr) return "it is over";
  if (message->chunks() == 0) return concat(message->size, " bytes, not confirmed");
  if (!message->accepted) return concat(message->size, " bytes, no receive for it is known");
  const std::size_t left = message->left(), flying = message->flights().size();
  return concat(message->chunks() - left - flying, " of ", message->chunks(), " chunks are there, ", flying, " under way, ",
                left, " wait");
}

std::string Report::links(const Courier& courier) {
  std::string text;
  const auto trunk = [&](const char* what, const Courier::Trunk& on) {
    text += concat("  ", what, " to rank ", on.link.peer, courier.routes_.is_gone(on.link.peer) ? " (gone): " : ": ",
                   on.rail.report(courier.now_));
    if (!on.waiting.empty()) text += concat(", ", on.waiting.size(), " chunks of others wait");
    text += '\n';
  };
  for (const auto& [key, on] : courier.rails_) trunk(concat("rail ", key.second).c_str(), on);
  for (const auto& [_, on] : courier.controls_) trunk("control", on);
  for (const auto& [peer, local] : courier.locals_)
    if (local.on_wire > 0 || !local.waiting.empty())
      text += concat("  local to rank ", peer, ": ", local.on_wire, " bytes of chunks not taken, ", local.waiting.size(),
                     " chunks of others wait\n");
  for (int node = 0; node < courier.topology_.nodes(); ++node) {
    if (node == courier.node_) continue;
    text += concat("  rails to node ", node, " taken for up:");
    for (const int rail : courier.routes_.living(node)) text += concat(" ", rail);
    text += '\n';
  }
  return text;
}

std::string Report::small_frames(const Courier& courier) {
  std::string text;
  std::map<std::pair<int, Kind>, int> kept;  // small frames, by destination and kind
  for (const auto& [_, frame] : courier.frames_)
    if (frame.small && !frame.done) ++kept[{frame.header.destination, frame.header.kind}];
  for (const auto& [key, count] : kept)
    text += concat("  ", count, " small frames of kind ", static_cast<int>(key.second), " for rank ", key.first,
                   " not confirmed by the next hop\n");
  if (!courier.stranded_.empty()) text += concat("  ", courier.stranded_.size(), " small frames have no way\n");
  return text;
}

std::string Report::room(const Router& router) {
  std::string text;
  const auto line = [&](const Router::Key& key, const std::string& what) {
    const auto flying = router.under_way_.find(key);
    const std::size_t chunks = flying == router.under_way_.end() ? 0 : flying->second;
    if (chunks == 0 && what.empty()) return;
    text += concat("  rail ", key.second, " to node ", key.first, ": ", chunks, " chunks of this rank under way", what, "\n");
  };
  for (const auto& [key, lender] : router.lenders_)
    line(key, lender.granted() == 0 && !lender.wanted()
                  ? ""
                  : concat(", lent ", lender.granted(), lender.wanted() ? ", more is wanted" : ""));
  for (const auto& [key, purse] : router.purses_)
    line(key, purse.credit() == 0 && purse.asked() == 0 ? "" : concat(", granted ", purse.credit(), ", asked ", purse.asked()));
  return text;
}

std::string Report::of(const Endpoint& endpoint) {
  const auto& open = endpoint.operations.open();
  std::vector<std::pair<Operation, Operations::Open>> all(open.begin(), open.end());
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::string text = concat("rank ", endpoint.rank, " of ", endpoint.topology.ranks(), ": ", all.size(),
                            all.size() == 1 ? " operation is open\n" : " operations are open\n");
  for (const auto& [_, operation] : all)
    text += concat("  ", endpoint.operations.describe(operation, -1), ": ", progress(endpoint, operation), ", after ",
                   (endpoint.now - operation.since) / 1'000'000, " ms\n");
  if (endpoint.lost_rank >= 0) text += concat("  ", endpoint.lost_text, "\n");
  return text + links(endpoint.courier) + small_frames(endpoint.courier) + room(endpoint.router);
}

}  // namespace hetsp::comm
