// Long because every frame's answer and every way to end stand together; what they use is in the parts beside it.
#include "hetsp/comm/endpoint.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "hetsp/base/error.h"
#include "hetsp/comm/link_cost.h"

namespace hetsp::comm {

namespace {

constexpr std::size_t kTellChunks = 16;        // stored chunks that are told to the source together
constexpr Time kTellDelay = 5'000'000;        // or after this time
constexpr Time kGoodbyeGrace = 500'000'000;    // for what a leaving rank sent another way before its goodbye

const std::uint32_t kMagic = Header{}.magic;

Outcome done() { return {}; }

}  // namespace

Endpoint::Endpoint(const Topology& of, int self, const EngineOptions& given, Transport& wires, Time start)
    : topology(of),
      rank(self),
      options(given),
      transport(wires),
      now(start),
      routes(topology, rank),
      courier(topology, rank, {.job = options.job, .chunk_bytes = options.chunk_bytes, .control_bytes = options.eager_bytes},
              routes, transport, now),
      router(topology, rank, options.chunk_bytes, routes, courier, counts),
      matcher(topology.ranks()),
      transfers(static_cast<std::size_t>(topology.ranks()), 0),
      eager_waiting(static_cast<std::size_t>(topology.ranks()), 0),
      out(static_cast<std::size_t>(topology.ranks())),
      in(static_cast<std::size_t>(topology.ranks())),
      canceled_early(static_cast<std::size_t>(topology.ranks())) {}

std::string Endpoint::describe(const Open& operation, int rail) const {
  std::string text = operation.sending              ? concat("sending to rank ", operation.peer)
                     : operation.peer == any_source ? std::string("receiving from any rank")
                                                    : concat("receiving from rank ", operation.peer);
  if (operation.peer == any_source) return text;
  text += operation.transfer != 0 ? concat(", transfer ", operation.transfer) : std::string(", no transfer begun");
  if (topology.same_node(rank, operation.peer)) return text + ", inside the node";
  const int home = routes.home(topology.node_of(operation.peer));
  return text + concat(", rail ", rail >= 0 ? rail : home);
}

void Endpoint::complete(Operation operation, const Outcome& outcome) {
  if (open.erase(operation) > 0) transport.complete(operation, outcome);
}

void Endpoint::end_outgoing(int peer, std::uint64_t transfer, const Outcome& outcome) {
  auto& messages = out[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  if (found == messages.end()) return;
  const std::unique_ptr<Outgoing> message = std::move(found->second);
  messages.erase(found);
  router.remove(*message);
  eager_waiting[static_cast<std::size_t>(peer)] -= message->eager_bytes;
  if (outcome.kind == Outcome::Kind::done) ++counts.messages_sent;
  complete(message->operation, outcome);
}

void Endpoint::end_incoming(int peer, std::uint64_t transfer, const Outcome& outcome) {
  auto& messages = in[static_cast<std::size_t>(peer)];
  const auto found = messages.find(transfer);
  if (found == messages.end()) return;
  Incoming& message = found->second;
  to_tell.erase({peer, transfer});
  if (!message.ended) message.outcome = outcome;
  message.ended = true;
  if (message.storing > 0) return;
  const Operation operation = message.operation;
  const Outcome result = message.outcome;
  messages.erase(found);
  if (result.kind == Outcome::Kind::done) ++counts.messages_received;
  complete(operation, result);
}

void Endpoint::reply(Kind kind, int peer, std::uint64_t transfer, Header header, std::span<const std::byte> payload) {
  header.kind = kind;
  header.transfer = transfer;
  header.destination = static_cast<std::uint16_t>(peer);
  courier.post(header, payload);
}

void Endpoint::meet(Matcher::Match& match) {
  auto& [offer, receive] = match;
  if (receive.operation == 0) {
    if (!offer.canceled) reply(Kind::refuse, offer.source, offer.transfer, {.flags = kEnded});
    return;
  }
  const auto opened = open.find(receive.operation);
  if (opened == open.end()) return;
  opened->second.transfer = offer.transfer;
  if (receive.peer == any_source) {
    opened->second.peer = offer.source;
    sources[receive.operation] = offer.source;
  }
  const std::string which = concat("transfer ", offer.transfer, " from rank ", offer.source, " to rank ", rank);
  if (offer.canceled)
    return complete(receive.operation, {Outcome::Kind::aborted, concat(which, " was aborted by rank ", offer.source)});
  if (offer.bytes != receive.bytes.size()) {
    reply(Kind::refuse, offer.source, offer.transfer, {.flags = kWrongSize, .value = receive.bytes.size()});
    return complete(receive.operation, {Outcome::Kind::invalid, concat(which, " has ", offer.bytes, " bytes, its receive ",
                                                                       receive.bytes.size(), ": they must be equal")});
  }
  if (offer.type != receive.type) {
    reply(Kind::refuse, offer.source, offer.transfer, {.flags = kWrongType, .type = receive.type});
    return complete(receive.operation,
                    {Outcome::Kind::invalid, concat(which, " has elements of type code ", offer.type,
                                                    ", its receive of type code ", receive.type, ": they must be equal")});
  }
  if (offer.eager || offer.bytes == 0) {
    if (!offer.payload.empty()) std::memcpy(receive.bytes.data(), offer.payload.data(), offer.payload.size());
    reply(Kind::fin, offer.source, offer.transfer);
    ++counts.messages_received;
    return complete(receive.operation, done());
  }
  in[static_cast<std::size_t>(offer.source)].emplace(offer.transfer, Incoming(offer, receive, options.chunk_bytes));
  reply(Kind::accept, offer.source, offer.transfer);
}

void Endpoint::on_offer(const Header& header, std::span<const std::byte> payload) {
  if (matcher.seen(header.source, header.transfer)) {
    ++counts.duplicates_dropped;
    return;
  }
  Offered offer{.source = header.source,
                .transfer = header.transfer,
                .tag = header.tag,
                .bytes = header.value,
                .type = header.type,
                .eager = (header.flags & kEager) != 0,
                .canceled = canceled_early[header.source].erase(header.transfer) > 0 || (header.flags & kGivenUp) != 0,
                .payload = {payload.begin(), payload.end()}};
  // Not of ours, the sender never makes one: of another size, or one that a CPU would copy into a device's memory.
  if (offer.eager && (offer.bytes != offer.payload.size() || (offer.bytes > 0 && is_on_device(offer.type)))) return;
  for (Matcher::Match& match : matcher.arrive(std::move(offer))) meet(match);
}

void Endpoint::on_accept(const Header& header) {
  const auto found = out[header.source].find(header.transfer);
  // Not there: canceled before it was accepted, or this is an old frame, and then the other side knows already.
  if (found == out[header.source].end()) {
    if (header.transfer <= transfers[header.source]) reply(Kind::cancel, header.source, header.transfer);
    return;
  }
  if (std::exchange(found->second->accepted, true)) return;
  router.add(*found->second);
  if (!leaving.empty()) return;  // in a moment
  const int node = topology.node_of(header.source);
  if (node != topology.node_of(rank) && !routes.reachable(node)) fail_stranded();
}

void Endpoint::on_refuse(const Header& header) {
  auto& messages = out[header.source];
  const auto found = messages.find(header.transfer);
  if (found == messages.end()) return;
  const Outgoing& message = *found->second;
  const std::string which = concat("transfer ", header.transfer, " from rank ", rank, " to rank ", header.source);
  Outcome outcome{Outcome::Kind::invalid, {}};
  const std::uint8_t reason = header.flags;
  if (reason == kWrongSize)
    outcome.what = concat(which, " has ", message.size, " bytes, its receive ", header.value, ": they must be equal");
  else if (reason == kWrongType)
    outcome.what = concat(which, " has elements of type code ", message.type, ", its receive of type code ", header.type,
                          ": they must be equal");
  else
    outcome = {Outcome::Kind::aborted, concat(which, " was aborted by rank ", header.source)};
  end_outgoing(header.source, header.transfer, outcome);
}

void Endpoint::on_cancel(const Header& header) {
  if (in[header.source].contains(header.transfer))
    return end_incoming(header.source, header.transfer,
                        {Outcome::Kind::aborted, concat("transfer ", header.transfer, " from rank ", header.source, " to rank ",
                                                        rank, " was aborted by rank ", header.source)});
  if (matcher.seen(header.source, header.transfer))
    matcher.cancel(header.source, header.transfer);
  else
    canceled_early[header.source].insert(header.transfer);
  if (auto& early = canceled_early[header.source]; early.size() > kCanceledEarly) early.erase(std::prev(early.end()));
}

void Endpoint::on_received(const Header& header, std::span<const std::byte> payload) {
  const auto found = out[header.source].find(header.transfer);
  if (found == out[header.source].end()) return;
  for (std::size_t at = 0; at + sizeof(std::uint32_t) <= payload.size(); at += sizeof(std::uint32_t)) {
    std::uint32_t chunk = 0;
    std::memcpy(&chunk, payload.data() + at, sizeof chunk);
    router.received(*found->second, chunk, now);
  }
}

void Endpoint::on_chunk(const Header& header, Arrival arrival) {
  const auto found = in[header.source].find(header.transfer);
  std::byte* where = found == in[header.source].end() || arrival == 0 ? nullptr : found->second.begin(header);
  if (where == nullptr) {
    ++counts.duplicates_dropped;
    if (arrival != 0) transport.release(arrival);
    return;
  }
  found->second.last_rail = header.rail;
  const Token token = ++stores_begun;
  stores.emplace(token, Store{arrival, header.source, header.transfer, header.chunk});
  transport.store(arrival, where, token);
}

void Endpoint::on_stored(Token token) {
  const auto begun = stores.find(token);
  if (begun == stores.end()) return;
  const Store store = begun->second;
  stores.erase(begun);
  transport.release(store.arrival);
  const auto found = in[static_cast<std::size_t>(store.source)].find(store.transfer);
  if (found == in[static_cast<std::size_t>(store.source)].end()) return;
  Incoming& message = found->second;
  if (message.fresh.empty()) message.told = now;
  message.stored(store.chunk);
  if (message.ended) return end_incoming(store.source, store.transfer, message.outcome);
  if (message.complete()) {
    reply(Kind::fin, store.source, store.transfer);
    return end_incoming(store.source, store.transfer, done());
  }
  to_tell.insert({store.source, store.transfer});
}

void Endpoint::tell(Time time) {
  for (auto key = to_tell.begin(); key != to_tell.end();) {
    Incoming& message = in[static_cast<std::size_t>(key->first)].at(key->second);
    if (message.fresh.size() < kTellChunks && time - message.told < kTellDelay) {
      ++key;
      continue;
    }
    reply(Kind::received, key->first, key->second, {}, std::as_bytes(std::span(message.fresh)));
    message.fresh.clear();
    key = to_tell.erase(key);
  }
}

void Endpoint::on_returned(const Header& header) {
  const auto peer = static_cast<std::size_t>(header.tag);
  if (peer >= out.size()) return;
  if (const auto found = out[peer].find(header.transfer); found != out[peer].end())
    router.returned(*found->second, header.chunk, header.rail);
}

void Endpoint::deliver(const Header& header, Arrival arrival, std::span<const std::byte> payload) {
  switch (header.kind) {
    case Kind::chunk:
      return on_chunk(header, arrival);  // releases it
    case Kind::offer:
      on_offer(header, payload);
      break;
    case Kind::accept:
      on_accept(header);
      break;
    case Kind::refuse:
      on_refuse(header);
      break;
    case Kind::cancel:
      on_cancel(header);
      break;
    case Kind::received:
      on_received(header, payload);
      break;
    case Kind::fin:
      end_outgoing(header.source, header.transfer, done());
      break;
    case Kind::want:
      router.on_want(header);
      break;
    case Kind::grant:
      router.on_grant(header);
      break;
    case Kind::returned:
      on_returned(header);
      break;
    case Kind::rail:
      router.on_rail(header, now);
      break;
    case Kind::cause:
      lose(static_cast<int>(header.value), std::string(reinterpret_cast<const char*>(payload.data()), payload.size()));
      break;
    case Kind::goodbye:
      on_goodbye(header.source, header.flags == kRetires);
      break;
    case Kind::ack:
    case Kind::probe:
    case Kind::lane:
      break;  // of a rail, or of the transports; never here
  }
  if (arrival != 0) transport.release(arrival);
}

bool Endpoint::foreign(const Header& header) const {
  const int ranks = topology.ranks();
  if (header.magic != kMagic || header.job != options.job || header.source >= ranks || header.destination >= ranks) return true;
  const auto rails_to = [&](int other) {
    return topology.same_node(rank, other)
               ? topology.node(topology.node_of(rank)).nics.size()
               : static_cast<std::size_t>(topology.rails(topology.node_of(rank), topology.node_of(other)));
  };
  return header.rail > 0 && header.rail >= std::max(rails_to(header.source), rails_to(header.destination));
}

void Endpoint::on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload) {
  const auto drop = [&] {
    if (arrival != 0) transport.release(arrival);
  };
  if (foreign(header) || payload.size() != header.length) {
    ++counts.foreign_dropped;
    return drop();
  }
  const auto body = payload.first(header.length);
  const auto arrived = courier.arrive(link, header, body, now);
  if (arrived == Rail::Arrived::stale) ++counts.foreign_dropped;
  if (arrived != Rail::Arrived::deliver) return drop();
  if (header.destination == rank) return deliver(header, arrival, body);
  if (header.kind != Kind::chunk) {
    courier.pass(header, body);
    return drop();
  }
  if (link.stage == Stage::local) router.relayed(header, link.peer);
  ++counts.chunks_relayed;
  if (arrival != 0) courier.relay(header, arrival);
}

Outcome Endpoint::peer_lost(const std::string& text, Operation operation, int rail) const {
  const auto known = open.find(operation);
  return {Outcome::Kind::peer_lost, known == open.end() ? text : concat(text, " (", describe(known->second, rail), ")")};
}

void Endpoint::fail_with(int peer, const std::string& text) {
  const auto from = static_cast<std::size_t>(peer);
  while (!out[from].empty()) {
    const auto& [transfer, message] = *out[from].begin();
    end_outgoing(peer, transfer, peer_lost(text, message->operation, -1));
  }
  std::vector<std::uint64_t> received;
  for (const auto& [transfer, _] : in[from]) received.push_back(transfer);
  for (const std::uint64_t transfer : received) {
    const Incoming& message = in[from].at(transfer);
    end_incoming(peer, transfer, peer_lost(text, message.operation, message.last_rail));
  }
  for (const Posted& receive : matcher.withdraw_from(peer)) complete(receive.operation, peer_lost(text, receive.operation, -1));
}

void Endpoint::fail_all(const std::string& text) {
  for (int peer = 0; peer < topology.ranks(); ++peer) fail_with(peer, text);
  for (const Posted& receive : matcher.withdraw_all()) complete(receive.operation, peer_lost(text, receive.operation, -1));
}

void Endpoint::forget(int peer) {
  routes.gone(peer);
  router.gone(peer);
  courier.forget(peer);
  goodbyes.erase(peer);
}

void Endpoint::lose(int peer, const std::string& why) {
  if (lost_rank >= 0 || peer < 0 || peer >= topology.ranks()) return;
  lost_rank = peer;
  lost_text = why.starts_with(concat("rank ", peer, " ")) ? why : concat("rank ", peer, " is lost: ", why);
  if (peer != rank) forget(peer);
  for (int other = 0; other < topology.ranks(); ++other)
    if (other != rank && !routes.is_gone(other))
      reply(Kind::cause, other, 0, {.value = static_cast<std::uint64_t>(peer)}, std::as_bytes(std::span(lost_text)));
  fail_all(lost_text);
}

void Endpoint::on_goodbye(int peer, bool retires) {
  if (routes.is_gone(peer)) return;
  if (retires)
    retired.insert(peer);
  else
    forget(peer);
  leaving[peer] = now + kGoodbyeGrace;
  leaving_last = peer;
}

void Endpoint::say_goodbye(bool retires) {
  left = true;
  carries = retires;
  if (lost_rank >= 0) return;  // the cause has been told; a goodbye would hide it
  for (int peer = 0; peer < topology.ranks(); ++peer)
    if (peer != rank && !routes.is_gone(peer)) goodbyes.insert(peer);
}

bool Endpoint::needed() const {
  if (lost_rank >= 0) return false;
  const int own = topology.node_of(rank);
  for (int peer = 0; peer < topology.ranks(); ++peer) {
    const int node = topology.node_of(peer);
    if (node == own || gone(peer)) continue;
    for (const int neighbour : topology.node(own).ranks)
      if (neighbour != rank && !gone(neighbour) && routes.owner(routes.home_of(neighbour, node)) == rank) return true;
  }
  return false;
}

void Endpoint::fail_stranded() {
  const int own = topology.node_of(rank);
  bool alone = true;
  for (int peer = 0; peer < topology.ranks(); ++peer) {
    if (peer == rank || gone(peer)) continue;
    alone = false;
    const int node = topology.node_of(peer);
    if (node == own || routes.reachable(node)) continue;
    std::vector<std::uint64_t> large;  // small messages find their way over the control link
    for (const auto& [transfer, message] : out[static_cast<std::size_t>(peer)])
      if (message->chunks() > 0 || message->size > options.eager_bytes) large.push_back(transfer);
    for (const std::uint64_t transfer : large) {
      reply(Kind::cancel, peer, transfer);
      const Operation operation = out[static_cast<std::size_t>(peer)].at(transfer)->operation;
      const std::string text = concat("rank ", peer, " is out of reach: the ranks that drive its NICs left the group");
      end_outgoing(peer, transfer, peer_lost(text, operation, -1));
    }
  }
  if (!alone) return;
  for (const Posted& receive : matcher.withdraw_from(any_source))
    complete(receive.operation, peer_lost(left_text(leaving_last) + ", the last of the others", receive.operation, -1));
}

std::string Endpoint::left_text(int peer) { return concat("rank ", peer, " left the group"); }

bool Endpoint::refused(Operation operation, int peer) {
  if (lost_rank >= 0)
    complete(operation, peer_lost(lost_text, operation, -1));
  else if (left)
    complete(operation, {Outcome::Kind::aborted, "this rank has left the group"});
  else if (peer != any_source && gone(peer))
    complete(operation, peer_lost(left_text(peer), operation, -1));
  else
    return false;
  return true;
}

void Endpoint::require_peer(int peer, bool sending) const {
  const bool allowed = (peer == any_source && !sending) || (peer >= 0 && peer < topology.ranks() && peer != rank);
  require(allowed, "rank ", peer, " is no peer of rank ", rank, " in a group of ", topology.ranks());
}

void Endpoint::begin(Operation operation, bool sending, int peer) {
  require(operation != 0 && !open.contains(operation), "operation ", operation, " is 0 or open already");
  require_peer(peer, sending);
  open.emplace(operation, Open{.sending = sending, .peer = peer});
}

std::size_t Endpoint::eager_limit(int peer) const {
  const int node = topology.node_of(peer);
  const bool over_rails = node != topology.node_of(rank) && routes.reachable(node);
  return over_rails ? std::max(options.eager_bytes, options.rail_eager_bytes) : options.eager_bytes;
}

bool Endpoint::spreads(int peer, std::size_t bytes) const {
  const int node = topology.node_of(rank), other = topology.node_of(peer);
  if (node == other || bytes < options.direct_bytes) return false;
  const auto rate = [&](int of) {
    const auto& nics = topology.node(of).nics;
    return nics[static_cast<std::size_t>(routes.home(other))].rate;
  };
  const double slower = std::min(rate(node), rate(other));  // 0 where either is not known
  return spread_pays({slower, options.local_rate}, bytes, options.chunk_bytes, topology.rails(node, other));
}

void Endpoint::poll(Time time) {
  now = time;
  courier.poll(now);
  for (const Header& chunk : courier.take_returned()) {
    if (chunk.source == rank) {
      Header back = chunk;
      back.tag = chunk.destination;
      on_returned(back);
    } else {
      reply(Kind::returned, chunk.source, chunk.transfer, {.tag = chunk.destination, .rail = chunk.rail, .chunk = chunk.chunk});
    }
  }
  for (const Courier::Change& change : courier.take_changes()) router.changed(change);
  router.pump(now);
  tell(now);
  for (auto peer = leaving.begin(); peer != leaving.end();) {
    if (now < peer->second) {
      ++peer;
      continue;
    }
    const int gone = peer->first;
    peer = leaving.erase(peer);
    fail_with(gone, left_text(gone));
    fail_stranded();
  }
  for (auto peer = goodbyes.begin(); peer != goodbyes.end();) {
    if (courier.owes(*peer)) {
      ++peer;
      continue;
    }
    reply(Kind::goodbye, *peer, 0, {.flags = carries ? kRetires : std::uint8_t{0}});
    peer = goodbyes.erase(peer);
  }
}

Time Endpoint::deadline() const {
  Time first = std::min(courier.deadline(), router.deadline(now));
  for (const auto& [peer, transfer] : to_tell)
    first = std::min(first, in[static_cast<std::size_t>(peer)].at(transfer).told + kTellDelay);
  for (const auto& [_, time] : leaving) first = std::min(first, time);
  return first;
}

}  // namespace hetsp::comm
