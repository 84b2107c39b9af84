#include "hetsp/comm/courier.h"

#include <algorithm>
#include <limits>

#include "hetsp/base/error.h"

namespace hetsp::comm {

namespace {

constexpr std::uint16_t kMostHops = 12;   // of a small frame, before it rests a while
constexpr Time kRest = 20'000'000;
constexpr std::size_t kLocalChunks = 4;  // on one local connection: enough to keep it busy

}  // namespace

Courier::Courier(const Topology& topology, int rank, const Options& options, RouteTable& routes, Transport& transport, Time now)
    : topology_(topology),
      rank_(rank),
      node_(topology.node_of(rank)),
      options_(options),
      routes_(routes),
      transport_(transport),
      now_(now) {
  const RailOptions control{.chunk_bytes = options.chunk_bytes, .resettable = false};
  for (int peer = 0; peer < topology.ranks(); ++peer) {
    if (peer == rank) continue;
    if (topology.same_node(rank, peer))
      locals_[peer];
    else
      controls_.emplace(peer, Trunk{.link = {Stage::control, peer, 0},
                                    .node = topology.node_of(peer),
                                    .rail = Rail(control, true, now),
                                    .waiting = {}});
  }
  for (int node = 0; node < topology.nodes(); ++node) {
    if (node == node_) continue;
    for (int index = 0; index < topology.rails(node_, node); ++index) {
      if (!routes.owns(node, index)) continue;
      const auto rate = [&](int of) { return topology.node(of).nics[static_cast<std::size_t>(index)].rate; };
      const RailOptions rail{.chunk_bytes = options.chunk_bytes, .rate = std::min(rate(node_), rate(node))};
      rails_.emplace(std::pair{node, index}, Trunk{.link = {Stage::rail, topology.owner(node, index), index},
                                                   .node = node,
                                                   .rail = Rail(rail, false, now),
                                                   .waiting = {}});
    }
  }
}

Rail* Courier::rail(int node, int index) {
  const auto found = rails_.find({node, index});
  return found == rails_.end() ? nullptr : &found->second.rail;
}

std::size_t Courier::waiting(int node, int index) const {
  const auto found = rails_.find({node, index});
  return found == rails_.end() ? 0 : found->second.waiting.size();
}

Courier::Trunk* Courier::trunk(Link link) {
  if (link.stage == Stage::control) {
    const auto found = controls_.find(link.peer);
    return found == controls_.end() ? nullptr : &found->second;
  }
  if (link.stage == Stage::local) return nullptr;
  const auto found = rails_.find({topology_.node_of(link.peer), link.rail});
  return found == rails_.end() ? nullptr : &found->second;
}

bool Courier::local_room(int peer) const {
  const auto local = locals_.find(peer);
  return local != locals_.end() && !routes_.is_gone(peer) && local->second.on_wire < kLocalChunks * options_.chunk_bytes;
}

void Courier::post(const Header& header, std::span<const std::byte> payload) {
  Frame frame{.header = header, .payload = {payload.begin(), payload.end()}, .link = {}, .small = true};
  frame.header.job = options_.job;
  frame.header.source = static_cast<std::uint16_t>(rank_);
  frame.header.length = static_cast<std::uint32_t>(payload.size());
  frame.header.attempt = 0;
  route(std::move(frame));
}

void Courier::pass(const Header& header, std::span<const std::byte> payload) {
  Frame frame{.header = header, .payload = {payload.begin(), payload.end()}, .link = {}, .small = true};
  ++frame.header.attempt;
  const int node = topology_.node_of(header.destination);
  const auto own = rails_.find({node, header.way - 1});
  if (header.way != 0 && own != rails_.end() && own->second.rail.up() && node != node_) {
    const Link link = own->second.link;
    return put(link, std::move(frame));
  }
  route(std::move(frame));
}

void Courier::route(Frame frame) {
  Header& header = frame.header;
  const int to = header.destination;
  if (routes_.is_gone(to)) return;
  if (topology_.same_node(rank_, to)) return put({Stage::local, to, 0}, std::move(frame));
  if (header.attempt > kMostHops) {
    header.attempt = 0;
    stranded_.push_back(std::move(frame));
    return;
  }
  const Trunk& control = controls_.at(to);
  const bool eager = header.kind == Kind::offer && header.length > 0;
  header.way = 0;
  if (!eager && control.rail.up()) return put(control.link, std::move(frame));
  if (const auto rails = routes_.living(control.node); !rails.empty()) {
    header.way = static_cast<std::uint16_t>(rails.front() + 1);
    return put(routes_.hop(to, rails.front()), std::move(frame));
  }
  if (header.length > options_.control_bytes && eager && !routes_.reachable(control.node)) {
    // No rail comes back, so its message fails; the place of its offer must be taken all the same, or those after it wait.
    header.length = 0;
    header.flags = 0;
    frame.payload.clear();
  }
  if (control.rail.up() && header.length <= options_.control_bytes) return put(control.link, std::move(frame));
  stranded_.push_back(std::move(frame));
}

void Courier::put(Link link, Frame frame) {
  const std::uint64_t name = ++names_;
  frame.link = link;
  frame.on_wire = true;
  if (Trunk* on = trunk(link)) {
    frame.header.hop = on->rail.put(name, frame.header.length, now_);
    frame.header.generation = on->rail.generation();
  } else {
    frame.header.hop = 0;
    frame.header.generation = 0;
  }
  const Frame& kept = frames_.emplace(name, std::move(frame)).first->second;
  transport_.send(link, kept.header, kept.payload, name);
}

void Courier::chunk(Link link, const Header& header, std::span<const std::byte> payload) {
  const std::uint64_t name = ++names_;
  Frame frame{.header = header, .payload = {}, .link = link, .on_wire = true};
  frame.header.job = options_.job;
  frame.header.source = static_cast<std::uint16_t>(rank_);
  frame.header.length = static_cast<std::uint32_t>(payload.size());
  if (Trunk* on = trunk(link)) {
    frame.header.hop = on->rail.put(name, payload.size(), now_);
    frame.header.generation = on->rail.generation();
  } else {
    locals_.at(link.peer).on_wire += payload.size();
  }
  const Frame& kept = frames_.emplace(name, std::move(frame)).first->second;
  transport_.send(link, kept.header, payload, name);
}

void Courier::relay(const Header& header, Arrival arrival) {
  const int node = topology_.node_of(header.destination);
  if (node != node_ && header.rail >= topology_.rails(node_, node)) return transport_.release(arrival);  // no such rail
  const Link link = routes_.hop(header.destination, header.rail);
  if (routes_.is_gone(header.destination) || routes_.is_gone(link.peer)) return transport_.release(arrival);
  if (Trunk* on = trunk(link)) {
    if (!on->rail.up()) {
      returned_.push_back(header);
      return transport_.release(arrival);
    }
    if (on->rail.room() == 0 || !on->waiting.empty()) return on->waiting.emplace_back(header, arrival), void();
  } else if (link.stage == Stage::rail) {  // not this rank's: a frame that lost its way
    return transport_.release(arrival);
  } else if (Local& local = locals_.at(link.peer); !local_room(link.peer) || !local.waiting.empty()) {
    return local.waiting.emplace_back(header, arrival), void();
  }
  start(link, header, arrival);
}

void Courier::start(Link link, const Header& header, Arrival arrival) {
  const std::uint64_t name = ++names_;
  Frame frame{.header = header, .payload = {}, .arrival = arrival, .link = link, .on_wire = true};
  frame.header.hop = 0;
  frame.header.generation = 0;
  if (Trunk* on = trunk(link)) {
    frame.header.hop = on->rail.put(name, header.length, now_);
    frame.header.generation = on->rail.generation();
  } else {
    locals_.at(link.peer).on_wire += header.length;
  }
  const Frame& kept = frames_.emplace(name, std::move(frame)).first->second;
  transport_.forward(link, kept.header, arrival, name);
}

Rail::Arrived Courier::arrive(Link link, const Header& header, std::span<const std::byte> payload, Time now) {
  now_ = now;
  Trunk* on = trunk(link);
  if (on == nullptr) return Rail::Arrived::deliver;
  const auto arrived = on->rail.arrive(header, payload, now);
  gather(*on, now);
  return arrived;
}

void Courier::sent(Token token) {
  const auto found = frames_.find(token);
  if (found == frames_.end()) return;
  Frame& frame = found->second;
  frame.on_wire = false;
  if (frame.arrival != 0) transport_.release(frame.arrival);
  frame.arrival = 0;
  if (frame.link.stage == Stage::local) {
    if (!frame.small) locals_.at(frame.link.peer).on_wire -= frame.header.length;
    frame.done = true;
  }
  if (frame.done) frames_.erase(found);
}

void Courier::finished(std::uint64_t name) {
  const auto found = frames_.find(name);
  if (found == frames_.end()) return;
  found->second.done = true;
  if (!found->second.on_wire) frames_.erase(found);
}

void Courier::connected(Link link, std::uint16_t generation, Time now) {
  now_ = now;
  Trunk* on = trunk(link);
  if (on == nullptr) return;
  on->rail.connected(generation, now);
  gather(*on, now);
}

void Courier::broken(Link link, Time now) {
  now_ = now;
  Trunk* on = trunk(link);
  if (on == nullptr) return;
  on->rail.broken(now);
  gather(*on, now);
}

void Courier::told_broken(int node, int rail, Time now) {
  const auto found = rails_.find({node, rail});
  if (found != rails_.end()) broken(found->second.link, now);
}

// What the rail has decided, carried out.
void Courier::gather(Trunk& trunk, Time now) {
  Rail& rail = trunk.rail;
  const bool resettable = trunk.link.stage == Stage::rail;
  for (const std::uint64_t name : rail.take_acknowledged()) finished(name);
  const bool down = rail.take_went_down(), up = rail.take_came_up(), reset = rail.take_reset();
  if (resettable && (down || up || reset)) {
    routes_.set_up(trunk.node, trunk.link.rail, rail.up());
    changes_.push_back({trunk.node, trunk.link.rail, rail.up(), reset});
  }
  std::vector<Frame> again;
  for (const std::uint64_t name : rail.take_returned()) {
    const auto found = frames_.find(name);
    if (found == frames_.end()) continue;
    if (found->second.small) {
      again.push_back({.header = found->second.header, .payload = std::move(found->second.payload), .link = {}, .small = true});
      ++again.back().header.attempt;
    } else {
      returned_.push_back(found->second.header);
    }
    finished(name);
  }
  if (!rail.up())
    for (auto& [header, arrival] : std::exchange(trunk.waiting, {})) {
      returned_.push_back(header);
      transport_.release(arrival);
    }
  if (reset && resettable && !routes_.is_gone(trunk.link.peer)) transport_.reset(trunk.link);
  Header own;
  std::vector<std::byte> payload;
  while (rail.take_own(own, payload)) {
    own.job = options_.job;
    own.source = static_cast<std::uint16_t>(rank_);
    own.destination = static_cast<std::uint16_t>(trunk.link.peer);
    own.rail = static_cast<std::uint16_t>(trunk.link.rail);
    own.generation = rail.generation();
    own.length = static_cast<std::uint32_t>(payload.size());
    if (!routes_.is_gone(trunk.link.peer)) transport_.send(trunk.link, own, payload, ++names_);
    own = {};
    payload.clear();
  }
  for (Frame& frame : again) route(std::move(frame));
  if (up && !stranded_.empty()) retry_ = now;
}

void Courier::forget(int rank) {
  std::erase_if(stranded_, [&](const Frame& frame) { return frame.header.destination == rank; });
  // Relayed chunks that wait for it, or for a link to it; the latter may go another way.
  const auto drop = [&](auto& waiting, bool through) {
    for (auto& [header, arrival] : std::exchange(waiting, {})) {
      if (!through && header.destination != rank) {
        waiting.emplace_back(header, arrival);
        continue;
      }
      if (header.destination != rank) returned_.push_back(header);
      transport_.release(arrival);
    }
  };
  for (auto& [peer, local] : locals_) drop(local.waiting, peer == rank);
  for (auto& [_, on] : rails_) drop(on.waiting, on.link.peer == rank);
  std::vector<Frame> again;
  for (auto entry = frames_.begin(); entry != frames_.end();) {
    Frame& frame = entry->second;
    const bool through = frame.link.peer == rank;
    if (through && frame.small && !frame.done && frame.header.destination != rank && !routes_.is_gone(frame.header.destination))
      again.push_back({.header = frame.header, .payload = frame.payload, .link = {}, .small = true});
    if (through || frame.header.destination == rank) frame.done = true;
    entry = frame.done && !frame.on_wire ? frames_.erase(entry) : std::next(entry);
  }
  for (Frame& frame : again) route(std::move(frame));
}

void Courier::poll(Time now) {
  now_ = now;
  for (auto* group : {&controls_}) {
    for (auto& [peer, on] : *group) {
      if (routes_.is_gone(peer)) continue;
      on.rail.poll(now);
      gather(on, now);
    }
  }
  for (auto& [_, on] : rails_) {
    if (routes_.is_gone(on.link.peer)) continue;
    on.rail.poll(now);
    gather(on, now);
    while (!on.waiting.empty() && on.rail.up() && on.rail.room() > 0) {
      const auto [header, arrival] = on.waiting.front();
      on.waiting.pop_front();
      start(on.link, header, arrival);
    }
  }
  for (auto& [peer, local] : locals_) {
    while (!local.waiting.empty() && local_room(peer)) {
      const auto [header, arrival] = local.waiting.front();
      local.waiting.pop_front();
      start({Stage::local, peer, 0}, header, arrival);
    }
  }
  if (!stranded_.empty() && now >= retry_) {
    retry_ = now + kRest;
    for (Frame& frame : std::exchange(stranded_, {})) route(std::move(frame));
  }
}

Time Courier::deadline() const {
  Time first = std::numeric_limits<Time>::max();
  for (const auto& [peer, on] : controls_)
    if (!routes_.is_gone(peer)) first = std::min(first, on.rail.deadline());
  for (const auto& [_, on] : rails_)
    if (!routes_.is_gone(on.link.peer)) first = std::min(first, on.rail.deadline());
  return stranded_.empty() ? first : std::min(first, retry_);
}

bool Courier::idle() const {
  const auto busy = [](const auto& entry) { return !entry.second.waiting.empty(); };
  const auto owing = [&](const auto& entry) {
    return entry.second.rail.owes_ack() && !routes_.is_gone(entry.second.link.peer);
  };
  return stranded_.empty() && std::none_of(locals_.begin(), locals_.end(), busy) &&
         std::none_of(rails_.begin(), rails_.end(), busy) && std::none_of(rails_.begin(), rails_.end(), owing) &&
         std::none_of(controls_.begin(), controls_.end(), owing) &&
         std::none_of(frames_.begin(), frames_.end(), [](const auto& entry) { return !entry.second.done; });
}

bool Courier::owes(int destination) const {
  const auto waits = [&](const Frame& frame) { return frame.small && !frame.done && frame.header.destination == destination; };
  return std::any_of(stranded_.begin(), stranded_.end(), waits) ||
         std::any_of(frames_.begin(), frames_.end(), [&](const auto& entry) { return waits(entry.second); });
}

std::vector<Header> Courier::take_returned() { return std::exchange(returned_, {}); }

std::vector<Courier::Change> Courier::take_changes() { return std::exchange(changes_, {}); }

void Courier::count(Statistics& into) const {
  for (const auto& [_, on] : rails_) {
    RailStatistics row = on.rail.statistics();
    row.node = on.node;
    row.rail = on.link.rail;
    into.rails.push_back(row);
  }
}

}  // namespace hetsp::comm
