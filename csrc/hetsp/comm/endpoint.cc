#include "hetsp/comm/endpoint.h"

#include <algorithm>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::comm {

namespace {

constexpr Time kGoodbyeGrace = 500'000'000;  // for what a leaving rank sent another way before its goodbye

const std::uint32_t kMagic = Header{}.magic;

}  // namespace

Endpoint::Endpoint(const Topology& of, int self, const EngineOptions& given, Transport& wires, Time start)
    : Self(of, self, given, wires, start), sending(*this), receiving(*this) {}

void Endpoint::deliver(const Header& header, Arrival arrival, std::span<const std::byte> payload) {
  switch (header.kind) {
    case Kind::chunk:
      return receiving.on_chunk(header, arrival);  // releases it
    case Kind::offer:
      receiving.on_offer(header, payload);
      break;
    case Kind::accept:
      on_accept(header);
      break;
    case Kind::refuse:
      sending.on_refuse(header);
      break;
    case Kind::cancel:
      receiving.on_cancel(header);
      break;
    case Kind::received:
      sending.on_received(header, payload);
      break;
    case Kind::fin:
      sending.on_fin(header);
      break;
    case Kind::want:
      router.on_want(header);
      break;
    case Kind::grant:
      router.on_grant(header);
      break;
    case Kind::returned:
      sending.on_returned(header.tag, header.transfer, header.chunk, header.rail);
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

void Endpoint::on_accept(const Header& header) {
  if (!sending.on_accept(header) || !leaving.empty()) return;  // what a rank that left would have carried fails in a moment
  const int node = topology.node_of(header.source);
  if (node != topology.node_of(rank) && !routes.reachable(node)) fail_stranded();
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

void Endpoint::fail_with(int peer, const std::string& text) {
  sending.fail_with(peer, text);
  receiving.fail_with(peer, text);
}

void Endpoint::fail_all(const std::string& text) {
  for (int peer = 0; peer < topology.ranks(); ++peer) fail_with(peer, text);
  receiving.fail_posted(text);
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
    sending.fail_large(peer, concat("rank ", peer, " is out of reach: the ranks that drive its NICs left the group"));
  }
  if (alone) receiving.fail_posted(any_source, left_text(leaving_last) + ", the last of the others");
}

std::string Endpoint::left_text(int peer) { return concat("rank ", peer, " left the group"); }

bool Endpoint::refused(Operation operation, int peer) {
  const auto end = [&](const Outcome& outcome) {
    operations.complete(operation, outcome);
    return true;
  };
  if (lost_rank >= 0) return end(operations.peer_lost(lost_text, operation, -1));
  if (left) return end({Outcome::Kind::aborted, "this rank has left the group"});
  if (peer != any_source && gone(peer)) return end(operations.peer_lost(left_text(peer), operation, -1));
  return false;
}

void Endpoint::poll(Time time) {
  now = time;
  courier.poll(now);
  for (const Header& chunk : courier.take_returned()) {
    if (chunk.source == rank)
      sending.on_returned(chunk.destination, chunk.transfer, chunk.chunk, chunk.rail);
    else
      reply(Kind::returned, chunk.source, chunk.transfer, {.tag = chunk.destination, .rail = chunk.rail, .chunk = chunk.chunk});
  }
  for (const Courier::Change& change : courier.take_changes()) router.changed(change);
  router.pump(now);
  receiving.tell(now);
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
  Time first = std::min({courier.deadline(), router.deadline(now), receiving.deadline()});
  for (const auto& [_, time] : leaving) first = std::min(first, time);
  return first;
}

}  // namespace hetsp::comm
