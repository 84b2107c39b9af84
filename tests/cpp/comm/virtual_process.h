// A process on a virtual network: one rank's engine, with everything that its transport promises it, and running late.
#pragma once

#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/virtual_network.h"
#include "hetsp/comm/engine.h"

namespace virtual_network {

struct GroupOptions {
  int nodes = 2, ranks = 4, nics = 4;  // of a node
  double nic_rate = 50e6, local_rate = 2e9, control_rate = 1e9;  // bytes/s
  Time nic_delay = 50 * kUs;
  bool tell_rates = true;  // the topology says how fast the NICs are
  int control_nic = -1;  // control messages share this NIC of every node; -1: they have a network of their own
  Time lag = 30 * kUs;  // a process runs so late at most, for every event,
  double hiccups = 0;  // ... and with this probability up to 40 ms late
  double ghosts = 0;  // probability that a frame of an ended connection is heard again
  double late_chunks = 0;  // ... and that a chunk is, of any connection, as if a relay had kept a copy
  double foreigners = 0;  // ... and that a frame comes again as one of another group's
  bool forget_epochs =
      false;  // late frames are taken for frames of the newest transfer: what an engine without epochs would do
  EngineOptions engine{};
};

// What a process finds around itself: time, chance and wires.
class World {
 public:
  Clock clock;
  Dice dice;
  GroupOptions options;
  std::vector<std::string> complaints;  // broken promises of the engine, first few

  World(const GroupOptions& o, std::uint64_t seed) : dice(seed), options(o) {}
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  virtual ~World() = default;

  virtual bool put(int rank, Link link, const Header& header, Payload payload, Token token) = 0;  // false: no such connection
  virtual void want(int rank, Link link) = 0;  // the rail, connected afresh
  virtual void completed(int rank, Operation operation, const Outcome& outcome) = 0;
  void complain(std::string what) {
    if (complaints.size() < 5) complaints.push_back(std::move(what));
  }
};

class Process final : public Transport {
 public:
  Process(World& world, int rank) : world_(world), rank_(rank) {}

  void send(Link link, const Header& header, std::span<const std::byte> payload, Token token) override;
  void forward(Link link, const Header& header, Arrival arrival, Token token) override;
  void store(Arrival arrival, std::byte* destination, Token token) override;
  void release(Arrival arrival) override;
  void reset(Link link) override;
  void complete(Operation operation, const Outcome& outcome) override;

  void happens(std::function<void(Engine&)> event);  // tells the engine, when the process runs next
  void arrives(Link link, const Frame& frame);
  void run();

  std::unique_ptr<Engine> engine;
  bool alive = true;
  Time stopped_until = 0;
  std::size_t held_bytes = 0, most_held = 0;  // of arrivals that were not released

 private:
  void put(Link link, const Header& header, Payload payload, Token token);

  World& world_;
  int rank_;
  std::vector<std::function<void(Engine&)>> inbox_;
  std::map<Arrival, Payload> held_;
  Arrival arrivals_ = 0;
  bool scheduled_ = false;
  std::uint64_t alarm_ = 0;
};

inline void Process::put(Link link, const Header& header, Payload payload, Token token) {
  if (!world_.put(rank_, link, header, std::move(payload), token)) happens([token](Engine& e) { e.on_sent(token); });
}

inline void Process::send(Link link, const Header& header, std::span<const std::byte> payload, Token token) {
  if (token == 0) world_.complain("a send has no token");
  if (header.length != payload.size()) world_.complain("a header's length is not its payload's");
  put(link, header, payload.empty() ? nullptr : std::make_shared<const std::vector<std::byte>>(payload.begin(), payload.end()),
      token);
}

inline void Process::forward(Link link, const Header& header, Arrival arrival, Token token) {
  const auto found = held_.find(arrival);
  if (found == held_.end()) return world_.complain("forwards an arrival that it does not hold");
  if (header.length != found->second->size()) world_.complain("a header's length is not its arrival's");
  put(link, header, found->second, token);
}

inline void Process::store(Arrival arrival, std::byte* destination, Token token) {
  const auto found = held_.find(arrival);
  if (found == held_.end()) return world_.complain("stores an arrival that it does not hold");
  std::memcpy(destination, found->second->data(), found->second->size());
  happens([token](Engine& e) { e.on_stored(token); });
}

inline void Process::release(Arrival arrival) {
  const auto found = held_.find(arrival);
  if (found == held_.end()) return world_.complain("releases an arrival that it does not hold");
  held_bytes -= found->second->size();
  held_.erase(found);
}

inline void Process::reset(Link link) {
  if (link.stage != Stage::rail) return world_.complain("resets a link that is not a rail");
  world_.want(rank_, link);
}

inline void Process::complete(Operation operation, const Outcome& outcome) { world_.completed(rank_, operation, outcome); }

inline void Process::happens(std::function<void(Engine&)> event) {
  inbox_.push_back(std::move(event));
  if (scheduled_) return;
  scheduled_ = true;
  const GroupOptions& o = world_.options;
  const Time late = world_.dice.chance(o.hiccups) ? world_.dice.between(0, 40 * kMs) : world_.dice.between(0, o.lag);
  world_.clock.after(late, [this] {
    scheduled_ = false;
    run();
  });
}

inline void Process::arrives(Link link, const Frame& frame) {
  if (!alive) return;
  Arrival arrival = 0;
  std::span<const std::byte> payload;
  if (frame.payload) {
    arrival = ++arrivals_;
    held_.emplace(arrival, frame.payload);
    held_bytes += frame.payload->size();
    most_held = std::max(most_held, held_bytes);
    payload = *frame.payload;
  }
  // The payload lives as long as the arrival, or longer.
  happens([link, frame, arrival, payload](Engine& e) { e.on_frame(link, frame.header, arrival, payload); });
}

inline void Process::run() {
  if (!alive) return;
  Clock& clock = world_.clock;
  if (clock.now() < stopped_until) {
    if (!scheduled_) {
      scheduled_ = true;
      clock.at(stopped_until, [this] {
        scheduled_ = false;
        run();
      });
    }
    return;
  }
  engine->now(clock.now());
  for (const auto& event : std::exchange(inbox_, {})) event(*engine);
  engine->poll(clock.now());
  const std::uint64_t alarm = ++alarm_;
  const Time deadline = engine->deadline();
  if (deadline == std::numeric_limits<Time>::max()) return;
  clock.at(std::max(deadline, clock.now() + 10 * kUs) + world_.dice.between(0, world_.options.lag), [this, alarm] {
    if (alarm == alarm_) run();
  });
}

}  // namespace virtual_network
