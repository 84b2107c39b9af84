// Engines of a whole group on wires that carry at once and in order: for tests of what engines say to each other, not of when.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "hetsp/comm/engine.h"

namespace wires {

using namespace hetsp::comm;

// Limits so small that short messages take every way there is.
inline constexpr EngineOptions kSmall{.job = 7, .chunk_bytes = 1000, .eager_bytes = 100, .direct_bytes = 3000};

// `nodes` nodes of `ranks` ranks and `nics` NICs each.
inline Topology grid(int nodes, int ranks, int nics) {
  std::vector<Node> all;
  for (int node = 0; node < nodes; ++node) {
    Node one;
    for (int rank = 0; rank < ranks; ++rank) one.ranks.push_back(node * ranks + rank);
    for (int nic = 0; nic < nics; ++nic) one.nics.push_back({"nic" + std::to_string(nic), "10.0.0.1", 0});
    all.push_back(one);
  }
  return Topology(all);
}

inline std::vector<std::byte> noise(std::size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> data(bytes);
  for (std::byte& one : data) one = static_cast<std::byte>(random());
  return data;
}

class Group {
 public:
  explicit Group(Topology topology, EngineOptions options = {.job = 7}) : topology_(std::move(topology)) {
    for (int rank = 0; rank < topology_.ranks(); ++rank) ends_.push_back(std::make_unique<End>(*this, rank));
    for (int rank = 0; rank < topology_.ranks(); ++rank)
      engines_.push_back(std::make_unique<Engine>(topology_, rank, options, *ends_[static_cast<std::size_t>(rank)], now_));
    for (int rank = 0; rank < topology_.ranks(); ++rank) {
      const int node = topology_.node_of(rank);
      for (int other = 0; other < topology_.nodes(); ++other)
        for (int rail = 0; other != node && rail < topology_.rails(node, other); ++rail)
          if (topology_.owner(node, rail) == rank)
            engine(rank).on_link_up({Stage::rail, topology_.owner(other, rail), rail}, 1);
    }
    settle();
  }

  Engine& engine(int rank) { return *engines_[static_cast<std::size_t>(rank)]; }

  // Carries frames and lets time pass, a millisecond a round, until nothing happens in `quiet` rounds.
  void settle(int quiet = 20) {
    for (int still = 0; still < quiet;) {
      still = round() ? 0 : still + 1;
    }
  }

  bool round() {
    now_ += 1'000'000;
    bool moved = false;
    for (auto& engine : engines_) engine->now(now_);
    std::deque<Event> events = std::exchange(events_, {});
    for (Event& event : events) moved |= carry(event);
    for (auto& engine : engines_) engine->poll(now_);
    return moved;
  }

  bool done(Operation operation) const { return outcomes_.contains(operation); }
  const Outcome& outcome(Operation operation) const { return outcomes_.at(operation); }
  std::size_t held() const { return payloads_.size(); }  // arrivals that nobody has released

  std::vector<Header> seen;                      // every frame carried, in order
  std::vector<std::pair<int, Link>> resets;      // who asked for which
  bool (*lose)(Link, const Header&) = nullptr;   // frames that vanish
  std::map<int, bool> dead;                      // ranks that neither get nor say anything

  void die(int rank) {
    dead[rank] = true;
    for (int other = 0; other < topology_.ranks(); ++other)
      if (other != rank && !dead[other])
        engine(other).on_link_broken({topology_.same_node(rank, other) ? Stage::local : Stage::control, rank, 0}, "closed");
  }

 private:
  struct Event {
    int rank = 0;  // whose
    Link link;
    Header header;
    std::vector<std::byte> payload;
    Token sent = 0, stored = 0;
  };

  struct End final : Transport {
    Group& group;
    int rank;
    End(Group& of, int self) : group(of), rank(self) {}
    void send(Link link, const Header& header, std::span<const std::byte> payload, Token token) override {
      group.events_.push_back({link.peer, {link.stage, rank, link.rail}, header, {payload.begin(), payload.end()}, 0, 0});
      group.events_.push_back({rank, link, {}, {}, token, 0});
    }
    void forward(Link link, const Header& header, Arrival arrival, Token token) override {
      send(link, header, group.payloads_.at(arrival), token);
    }
    void store(Arrival arrival, std::byte* destination, Token token) override {
      const auto& payload = group.payloads_.at(arrival);
      std::memcpy(destination, payload.data(), payload.size());
      group.events_.push_back({rank, {}, {}, {}, 0, token});
    }
    void release(Arrival arrival) override { group.payloads_.erase(arrival); }
    void reset(Link link) override { group.resets.emplace_back(rank, link); }
    void complete(Operation operation, const Outcome& outcome) override { group.outcomes_.emplace(operation, outcome); }
  };

  bool carry(Event& event) {
    if (dead[event.rank]) return false;
    Engine& to = engine(event.rank);
    if (event.sent != 0) return to.on_sent(event.sent), false;
    if (event.stored != 0) return to.on_stored(event.stored), true;
    const bool counts = event.header.kind != Kind::probe && event.header.kind != Kind::ack;
    if (dead[event.link.peer] || (lose != nullptr && lose(event.link, event.header))) return counts;
    seen.push_back(event.header);
    const Arrival arrival = event.payload.empty() ? 0 : ++arrivals_;
    if (arrival != 0) payloads_.emplace(arrival, event.payload);
    to.on_frame(event.link, event.header, arrival, event.payload);
    return counts;
  }

  Topology topology_;
  Time now_ = 1'000'000'000;
  Arrival arrivals_ = 0;
  std::vector<std::unique_ptr<End>> ends_;
  std::vector<std::unique_ptr<Engine>> engines_;
  std::deque<Event> events_;
  std::map<Arrival, std::vector<std::byte>> payloads_;
  std::map<Operation, Outcome> outcomes_;
};

}  // namespace wires
