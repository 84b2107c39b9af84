// A group of processes on a virtual network: their connections, and their users.
//
// Kept of what transport.h promises: frames of a connection arrive in order or not at all; every send is answered; a rail comes
// up again only when both ends have asked for it, with the next generation. Used of what it leaves open: processes run late;
// a connection that ends may still be heard of long after, in copies, and with the number of the connection that followed.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "comm/virtual_process.h"

namespace virtual_network {

// A message from one user to another, on both sides.
struct Message {
  int source = 0, destination = 0;
  std::int64_t tag = 0;
  std::vector<std::byte> expected, out, in;  // `out` is scribbled over as soon as the send has ended
  std::uint16_t type = 1, receive_type = 1;
  Operation send = 0, receive = 0;
  std::optional<Outcome> sent, received;
  Time posted = 0, sent_at = 0, received_at = 0;
};

inline void fill(std::vector<std::byte>& bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    seed += 0x9e3779b97f4a7c15ULL;  // splitmix64
    std::uint64_t word = (seed ^ (seed >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    word = (word ^ (word >> 27U)) * 0x94d049bb133111ebULL;
    word ^= word >> 31U;
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, bytes.size() - i));
  }
}

class Group final : public World {
 public:
  std::deque<Message> messages;
  std::uint64_t foreign_sent = 0, ghosts_sent = 0;

  Group(const GroupOptions& o, std::uint64_t seed) : World(o, seed), topology_(make_topology(o)) {
    for (int node = 0; node < o.nodes; ++node) {
      nics_.emplace_back();
      for (int k = 0; k < o.nics; ++k) nics_.back().push_back({.rate = o.nic_rate, .delay = o.nic_delay});
      control_.push_back({.rate = o.control_rate});
    }
    const int ranks = topology_.ranks();
    for (int rank = 0; rank < ranks; ++rank) loopback_.push_back({.rate = o.local_rate, .delay = 5 * kUs});
    for (int rank = 0; rank < ranks; ++rank) {
      processes_.push_back(std::make_unique<Process>(*this, rank));
      processes_.back()->engine = std::make_unique<Engine>(topology_, rank, o.engine, *processes_.back(), clock.now());
    }
    for (int a = 0; a < ranks; ++a) {
      for (int b = a + 1; b < ranks; ++b) {
        if (topology_.same_node(a, b)) connect({Stage::local, b, 0}, a);
        connect({Stage::control, b, 0}, a);
      }
    }
    for (int a = 0; a < o.nodes; ++a)
      for (int b = a + 1; b < o.nodes; ++b)
        for (int k = 0; k < topology_.rails(a, b); ++k) {
          rails_.push_back({.ends = {topology_.owner(a, k), topology_.owner(b, k)}, .rail = k});
          clock.after(kUs, [this, index = rails_.size() - 1] { try_connect(index); });
        }
    for (int rank = 0; rank < ranks; ++rank) process(rank).happens([](Engine&) {});
  }
  ~Group() override { clock.forget(); }  // what is still to happen holds streams, which leave the queues of NICs

  const Topology& topology() const { return topology_; }
  Process& process(int rank) { return *processes_.at(static_cast<std::size_t>(rank)); }
  Engine& engine(int rank) { return *process(rank).engine; }
  Nic& nic(int node, int k) { return nics_.at(static_cast<std::size_t>(node)).at(static_cast<std::size_t>(k)); }
  bool rail_open(int index) const { return rails_.at(static_cast<std::size_t>(index)).open; }

  // Users.
  Message& message(int source, int destination, std::int64_t tag, std::size_t bytes) {
    Message& message = messages.emplace_back();
    message.source = source;
    message.destination = destination;
    message.tag = tag;
    message.expected.resize(bytes);
    fill(message.expected, messages.size() * 1'000'003);
    message.out = message.expected;
    message.in.assign(bytes, std::byte{0xcc});
    message.posted = clock.now();
    return message;
  }
  void post_send(Message& message) {
    message.send = name(message, true);
    process(message.source).happens([&message](Engine& engine) {
      engine.send(message.send, message.destination, message.tag, message.out, message.type);
    });
  }
  void post_receive(Message& message, bool from_anyone = false) {
    message.receive = name(message, false);
    process(message.destination).happens([&message, from_anyone](Engine& engine) {
      engine.receive(message.receive, from_anyone ? any_source : message.source, message.tag, message.in, message.receive_type);
    });
  }
  Message& exchange(int source, int destination, std::int64_t tag, std::size_t bytes) {
    Message& message = this->message(source, destination, tag, bytes);
    post_receive(message);
    post_send(message);
    return message;
  }

  void cancel(const Message& message, bool sends) {
    const Operation operation = sends ? message.send : message.receive;
    const bool known = operation != 0 && !(sends ? message.sent : message.received);
    if (known)
      process(sends ? message.source : message.destination).happens([this, operation](Engine& engine) {
        if (!ended(operations_.at(operation))) engine.cancel(operation, "changed its mind");
      });
  }

  // Every operation posted on a living process has ended.
  bool settled() const { return open_ == 0; }
  bool run(Time limit) {
    return clock.run(clock.now() + limit, [this] { return settled(); }) && settled();
  }
  void pass(Time time) {
    clock.run(clock.now() + time, [] { return false; });
  }

  void die(int rank) {
    Process& process = this->process(rank);
    process.alive = false;
    for (auto& [operation, entry] : operations_)
      if ((entry.second ? entry.first->source : entry.first->destination) == rank && !ended(entry))
        --open_, abandoned_.insert(operation);
    for (int other = 0; other < topology_.ranks(); ++other) {
      if (other == rank) continue;
      close({Stage::local, other, 0}, rank, true);
      close({Stage::control, other, 0}, rank, true);
    }
    for (const Rail& rail : rails_)
      for (int end = 0; end < 2; ++end)
        if (rail.ends[end] == rank) close({Stage::rail, rail.ends[1 - end], rail.rail}, rank, true);
  }
  bool is_abandoned(Operation operation) const { return abandoned_.contains(operation); }

  std::size_t backlog(int rank) const {  // bytes that wait for a wire
    std::size_t bytes = 0;
    for (const auto& [key, stream] : streams_)
      if (std::get<0>(key) == rank) bytes += stream->queued();
    return bytes;
  }

 private:
  using Key = std::tuple<int, int, Stage, int>;  // from, to, stage, rail

  struct Rail {
    int ends[2];
    int rail = 0;
    bool wanted[2] = {true, true};
    bool open = false, trying = false;
    std::uint16_t generation = 0;
  };

  static Topology make_topology(const GroupOptions& o) {
    std::vector<Node> nodes;
    for (int node = 0; node < o.nodes; ++node) {
      nodes.emplace_back();
      for (int rank = 0; rank < o.ranks; ++rank) nodes.back().ranks.push_back(node * o.ranks + rank);
      for (int k = 0; k < o.nics; ++k)
        nodes.back().nics.push_back({"nic" + std::to_string(k), "10.200.0.1", o.tell_rates ? o.nic_rate : 0});
    }
    return Topology(nodes);
  }

  Nic& interface(int rank, const Link& link) {
    const int node = topology_.node_of(rank);
    if (link.stage == Stage::rail) return nic(node, link.rail);
    if (topology_.same_node(rank, link.peer)) return loopback_.at(static_cast<std::size_t>(rank));
    return options.control_nic >= 0 ? nic(node, options.control_nic) : control_.at(static_cast<std::size_t>(node));
  }

  // Both directions of the connection of `rank` over `link`.
  void connect(Link link, int rank) {
    direct(rank, link);
    direct(link.peer, {link.stage, rank, link.rail});
  }
  void direct(int from, Link link) {
    const Link back{link.stage, from, link.rail};
    auto stream = std::make_shared<Stream>(clock, dice, interface(from, link), interface(link.peer, back));
    stream->sent = [this, from](Token token) {
      if (token != 0) process(from).happens([token](Engine& engine) { engine.on_sent(token); });
    };
    stream->deliver = [this, to = link.peer, back, from = std::weak_ptr(stream)](const Frame& frame) {
      delivered(to, back, frame);
      process(to).happens([from](Engine&) {
        if (const auto open = from.lock()) open->taken();
      });
    };
    streams_[{from, link.peer, link.stage, link.rail}] = stream;
  }

  void delivered(int to, Link link, const Frame& frame) {
    if (frame.header.kind != Kind::ack) {  // which has a time there
      auto& newest = newest_[{frame.header.source, frame.header.destination}];
      newest = std::max(newest, frame.header.transfer);
    }
    if (frame.header.kind == Kind::chunk && dice.chance(options.late_chunks)) haunt(to, link, frame);
    if (dice.chance(options.foreigners)) {
      Frame foreign = frame;
      foreign.header.job ^= 1 + dice.below(1000);
      if (dice.once_in(2)) foreign.header.hop = 0;
      ++foreign_sent;
      clock.after(dice.between(0, 100 * kMs), [this, to, link, foreign] { process(to).arrives(link, foreign); });
    }
    if (link.stage == Stage::rail) {
      auto& last = remembered_[{link.peer, to, link.stage, link.rail}];
      last.push_back(frame);
      if (last.size() > 8) last.pop_front();
    }
    process(to).arrives(link, frame);
  }

  // A frame of a connection that has ended comes again, as of the old one or as of the one that followed.
  void haunt(int to, Link link, Frame frame) {
    ++ghosts_sent;
    clock.after(dice.between(0, 800 * kMs), [this, to, link, frame]() mutable {
      if (dice.once_in(2)) {
        frame.header.hop = 0;
        for (const Rail& rail : rails_)
          if (link.stage == Stage::rail && rail.rail == link.rail &&
              std::minmax(rail.ends[0], rail.ends[1]) == std::minmax(to, link.peer))
            frame.header.generation = rail.generation;
      }
      if (options.forget_epochs && frame.header.kind != Kind::ack)
        frame.header.transfer = newest_[{frame.header.source, frame.header.destination}];
      process(to).arrives(link, frame);
    });
  }

  // `rank` ends its side of a connection; the other side hears of it if the network lets it.
  void close(Link link, int rank, bool death) {
    const Link back{link.stage, rank, link.rail};
    bool existed = false;
    for (const auto& [key, to, seen_as] : {std::tuple{Key{rank, link.peer, link.stage, link.rail}, link.peer, back},
                                           std::tuple{Key{link.peer, rank, link.stage, link.rail}, rank, link}}) {
      const auto found = streams_.find(key);
      if (found == streams_.end()) continue;
      existed = true;
      std::vector<Frame> lost = found->second->close();
      auto& last = remembered_[key];
      lost.insert(lost.end(), last.begin(), last.end());
      last.clear();
      for (const Frame& frame : lost)
        if (dice.chance(options.ghosts)) haunt(to, seen_as, frame);
      streams_.erase(found);
    }
    if (!existed) return;
    for (Rail& rail : rails_)
      if (link.stage == Stage::rail && rail.rail == link.rail &&
          std::minmax(rail.ends[0], rail.ends[1]) == std::minmax(rank, link.peer))
        rail.open = false;
    tell_closed(rank, link, death);
  }

  // The last words of a connection arrive when the path carries them; as those of a kernel they are not repeated for ever.
  void tell_closed(int rank, Link link, bool death) {
    const Link back{link.stage, rank, link.rail};
    const Nic& from = interface(rank, link);
    const Nic& to = interface(link.peer, back);
    if (!passes(from, to)) {
      if (death) clock.after(200 * kMs, [this, rank, link] { tell_closed(rank, link, true); });
      return;
    }
    clock.after(from.delay + dice.between(0, kMs), [this, back, peer = link.peer] {
      if (back.stage == Stage::rail && has_stream(peer, back)) return;  // a newer connection is there already
      process(peer).happens([back](Engine& engine) { engine.on_link_broken(back, "connection closed by peer"); });
    });
  }
  bool has_stream(int from, Link link) const { return streams_.contains({from, link.peer, link.stage, link.rail}); }

  bool put(int rank, Link link, const Header& header, Payload payload, Token token) override {
    const auto found = streams_.find({rank, link.peer, link.stage, link.rail});
    if (found == streams_.end()) return false;
    found->second->put({header, std::move(payload)}, token);
    return true;
  }

  void want(int rank, Link link) override {
    for (std::size_t i = 0; i < rails_.size(); ++i) {
      Rail& rail = rails_[i];
      if (rail.rail != link.rail || std::minmax(rail.ends[0], rail.ends[1]) != std::minmax(rank, link.peer)) continue;
      close(link, rank, false);
      rail.wanted[rail.ends[0] == rank ? 0 : 1] = true;
      if (!rail.trying) try_connect(i);
    }
  }

  void try_connect(std::size_t index) {
    Rail& rail = rails_[index];
    rail.trying = false;
    if (rail.open || !rail.wanted[0] || !rail.wanted[1]) return;
    if (!process(rail.ends[0]).alive || !process(rail.ends[1]).alive) return;
    const Link link{Stage::rail, rail.ends[1], rail.rail};
    const Nic& a = interface(rail.ends[0], link);
    const Nic& b = interface(rail.ends[1], {Stage::rail, rail.ends[0], rail.rail});
    rail.trying = true;
    if (!passes(a, b) || !passes(b, a))
      return clock.after(dice.between(100 * kMs, 300 * kMs), [this, index] { try_connect(index); });
    rail.trying = false;
    rail.open = true;
    rail.wanted[0] = rail.wanted[1] = false;
    ++rail.generation;
    connect(link, rail.ends[0]);
    for (int end = 0; end < 2; ++end) {
      const Link seen{Stage::rail, rail.ends[1 - end], rail.rail};
      process(rail.ends[end]).happens([seen, generation = rail.generation](Engine& engine) {
        engine.on_link_up(seen, generation);
      });
    }
  }

  Operation name(Message& message, bool sends) {
    const Operation operation = ++last_operation_;
    operations_.emplace(operation, std::pair{&message, sends});
    ++open_;
    return operation;
  }

  using Entry = std::pair<Message*, bool>;
  static bool ended(const Entry& entry) { return (entry.second ? entry.first->sent : entry.first->received).has_value(); }

  void completed(int rank, Operation operation, const Outcome& outcome) override {
    const auto found = operations_.find(operation);
    if (found == operations_.end()) return complain("an operation ended that nobody posted");
    auto& [message, sends] = found->second;
    if (ended(found->second)) return complain("operation " + std::to_string(operation) + " ended twice");
    if ((sends ? message->source : message->destination) != rank) return complain("another rank's operation ended");
    if (!abandoned_.contains(operation)) --open_;
    if (sends) {
      message->sent = outcome;
      message->sent_at = clock.now();
      std::fill(message->out.begin(), message->out.end(), std::byte{0xee});
    } else {
      message->received = outcome;
      message->received_at = clock.now();
      if (outcome.kind == Outcome::Kind::done) at_end_.emplace_back(message, message->in);
    }
  }

 public:
  // Receives whose memory changed after they had ended.
  int touched_after_the_end() const {
    int count = 0;
    for (const auto& [message, bytes] : at_end_) count += message->in != bytes;
    return count;
  }

 private:
  Topology topology_;
  std::deque<std::deque<Nic>> nics_;
  std::deque<Nic> control_, loopback_;
  std::map<Key, std::shared_ptr<Stream>> streams_;
  std::map<Key, std::deque<Frame>> remembered_;
  std::map<std::pair<int, int>, std::uint64_t> newest_;  // transfer, of an ordered pair
  std::vector<Rail> rails_;
  std::vector<std::unique_ptr<Process>> processes_;
  std::map<Operation, Entry> operations_;
  std::set<Operation> abandoned_;
  std::vector<std::pair<Message*, std::vector<std::byte>>> at_end_;
  Operation last_operation_ = 0;
  int open_ = 0;
};

}  // namespace virtual_network
