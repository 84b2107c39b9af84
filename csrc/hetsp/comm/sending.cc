#include "hetsp/comm/sending.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/comm/link_cost.h"

namespace hetsp::comm {

namespace {

constexpr std::size_t kEagerFloor = 64;  // bytes that an eager message counts at least: what its header takes

}  // namespace

Sending::Sending(Self& self)
    : self_(self),
      transfers_(static_cast<std::size_t>(self.topology.ranks()), 0),
      eager_waiting_(transfers_.size(), 0),
      out_(transfers_.size()) {}

void Sending::begin(Operation operation, int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type) {
  const auto to = static_cast<std::size_t>(peer);
  const EngineOptions& options = self_.options;
  std::size_t& waiting = eager_waiting_[to];
  const std::size_t counted = std::max(bytes.size(), kEagerFloor);
  const bool eager =
      bytes.size() <= eager_limit(peer) && waiting + counted <= options.eager_window && (bytes.empty() || !is_on_device(type));
  const std::size_t window = std::max<std::size_t>(2, options.message_window / options.chunk_bytes);
  auto message = std::make_unique<Outgoing>(eager ? 0 : bytes.size(), options.chunk_bytes, window);
  message->operation = operation;
  message->destination = peer;
  message->transfer = ++transfers_[to];
  message->tag = tag;
  message->bytes = bytes;
  message->size = bytes.size();
  message->type = type;
  message->eager_bytes = eager ? counted : 0;
  message->spread = !eager && spreads(peer, bytes.size());
  waiting += message->eager_bytes;
  Statistics& counts = self_.counts;
  if (eager)
    ++counts.eager;
  else if (self_.topology.same_node(self_.rank, peer))
    ++counts.local;
  else
    ++(message->spread ? counts.spread : counts.direct);
  if (Operations::Open* const open = self_.operations.find(operation)) open->transfer = message->transfer;
  const Header header{.flags = eager ? kEager : std::uint8_t{0}, .value = bytes.size(), .tag = tag, .type = type};
  const std::uint64_t transfer = message->transfer;
  out_[to].emplace(transfer, std::move(message));
  self_.reply(Kind::offer, peer, transfer, header, eager ? bytes : std::span<const std::byte>{});
}

void Sending::begin_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type) {
  self_.reply(Kind::offer, peer, ++transfers_[static_cast<std::size_t>(peer)],
              {.flags = kGivenUp, .value = bytes, .tag = tag, .type = type});
}

std::size_t Sending::eager_limit(int peer) const {
  const int node = self_.topology.node_of(peer);
  const bool over_rails = node != self_.topology.node_of(self_.rank) && self_.routes.reachable(node);
  return over_rails ? std::max(self_.options.eager_bytes, self_.options.rail_eager_bytes) : self_.options.eager_bytes;
}

bool Sending::spreads(int peer, std::size_t bytes) const {
  const int node = self_.topology.node_of(self_.rank), other = self_.topology.node_of(peer);
  if (node == other || bytes < self_.options.direct_bytes) return false;
  const auto rate = [&](int of) {
    const auto& nics = self_.topology.node(of).nics;
    return nics[static_cast<std::size_t>(self_.routes.home(other))].rate;
  };
  const double slower = std::min(rate(node), rate(other));  // 0 where either is not known
  return spread_pays({slower, self_.options.local_rate}, bytes, self_.options.chunk_bytes, self_.topology.rails(node, other));
}

const Outgoing* Sending::find(int peer, std::uint64_t transfer) const {
  const auto& messages = out_[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  return found == messages.end() ? nullptr : found->second.get();
}

void Sending::end(int peer, std::uint64_t transfer, const Outcome& outcome) {
  auto& messages = out_[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  if (found == messages.end()) return;
  const std::unique_ptr<Outgoing> message = std::move(found->second);
  messages.erase(found);
  self_.router.remove(*message);
  eager_waiting_[static_cast<std::size_t>(peer)] -= message->eager_bytes;
  if (outcome.kind == Outcome::Kind::done) ++self_.counts.messages_sent;
  self_.operations.complete(message->operation, outcome);
}

void Sending::cancel(const Operations::Open& known, const Outcome& outcome) {
  const int peer = known.peer;
  const std::uint64_t transfer = known.transfer;
  self_.reply(Kind::cancel, peer, transfer);
  end(peer, transfer, outcome);
}

bool Sending::on_accept(const Header& header) {
  const auto found = out_[header.source].find(header.transfer);
  // Not there: canceled before it was accepted, or this is an old frame, and then the other side knows already.
  if (found == out_[header.source].end()) {
    if (header.transfer <= transfers_[header.source]) self_.reply(Kind::cancel, header.source, header.transfer);
    return false;
  }
  if (std::exchange(found->second->accepted, true)) return false;
  self_.router.add(*found->second);
  return true;
}

void Sending::on_refuse(const Header& header) {
  const Outgoing* const message = find(header.source, header.transfer);
  if (message == nullptr) return;
  const std::string which = concat("transfer ", header.transfer, " from rank ", self_.rank, " to rank ", header.source);
  Outcome outcome{Outcome::Kind::invalid, {}};
  const std::uint8_t reason = header.flags;
  if (reason == kWrongSize)
    outcome.what = concat(which, " has ", message->size, " bytes, its receive ", header.value, ": they must be equal");
  else if (reason == kWrongType)
    outcome.what = concat(which, " has elements of type code ", message->type, ", its receive of type code ", header.type,
                          ": they must be equal");
  else
    outcome = {Outcome::Kind::aborted, concat(which, " was aborted by rank ", header.source)};
  end(header.source, header.transfer, outcome);
}

void Sending::on_received(const Header& header, std::span<const std::byte> payload) {
  const auto found = out_[header.source].find(header.transfer);
  if (found == out_[header.source].end()) return;
  for (std::size_t at = 0; at + sizeof(std::uint32_t) <= payload.size(); at += sizeof(std::uint32_t)) {
    std::uint32_t chunk = 0;
    std::memcpy(&chunk, payload.data() + at, sizeof chunk);
    self_.router.received(*found->second, chunk, self_.now);
  }
}

void Sending::on_fin(const Header& header) { end(header.source, header.transfer, {}); }

void Sending::on_returned(std::int64_t peer, std::uint64_t transfer, std::uint32_t chunk, int rail) {
  const auto to = static_cast<std::size_t>(peer);
  if (to >= out_.size()) return;
  if (const auto found = out_[to].find(transfer); found != out_[to].end()) self_.router.returned(*found->second, chunk, rail);
}

void Sending::fail_with(int peer, const std::string& text) {
  auto& messages = out_[static_cast<std::size_t>(peer)];
  while (!messages.empty()) {
    const auto& [transfer, message] = *messages.begin();
    end(peer, transfer, self_.operations.peer_lost(text, message->operation, -1));
  }
}

void Sending::fail_large(int peer, const std::string& text) {
  std::vector<std::pair<std::uint64_t, Operation>> large;  // small messages find their way over the control link
  for (const auto& [transfer, message] : out_[static_cast<std::size_t>(peer)])
    if (message->chunks() > 0 || message->size > self_.options.eager_bytes) large.emplace_back(transfer, message->operation);
  for (const auto& [transfer, operation] : large) {
    self_.reply(Kind::cancel, peer, transfer);
    end(peer, transfer, self_.operations.peer_lost(text, operation, -1));
  }
}

}  // namespace hetsp::comm
