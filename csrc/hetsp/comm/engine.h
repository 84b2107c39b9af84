// The protocol of one rank: matching, chunks, rails, faults. Pure: no thread, no clock, no socket.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "hetsp/comm/matcher.h"
#include "hetsp/comm/statistics.h"
#include "hetsp/comm/topology.h"
#include "hetsp/comm/transport.h"

namespace hetsp::comm {

struct EngineOptions {
  std::uint64_t job = 0;                 // one incarnation of one group: equal on all its ranks, never used again
  std::size_t chunk_bytes = 256 * 1024;  // largest payload of a frame; equal on all ranks
  std::size_t eager_bytes = 32 * 1024;   // messages up to this size travel inside their offer, over any link
  std::size_t rail_eager_bytes = 0;      // ... or up to this one, over rails alone; no more than chunk_bytes
  std::size_t direct_bytes = 256 * 1024;        // messages below this size are never spread
  std::size_t eager_window = 1 << 20;  // bytes of eager messages that may wait at one destination; beyond, they ask first
  std::size_t message_window = 16 << 20;  // bytes of one message that may be under way
  double local_rate = 2e9;  // bytes/s inside a node, for the choice of a route
};

// Drive it from one thread: tell it the time and what happened, call poll() after that, and again no later than deadline().
// Operations may complete inside any call.
class Engine : public Listener {
 public:
  Engine(const Topology& topology, int rank, const EngineOptions& options, Transport& transport, Time now);
  ~Engine() override;

  // Users' operations. The memory stays with the engine until Transport::complete. `type` is an opaque code that must be equal
  // on both sides; its bit kOnDevice says that the bytes are a device's memory, which the transport alone touches. Messages of
  // one pair and tag match in the order in which they were posted.
  void send(Operation operation, int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type);
  void receive(Operation operation, int peer_or_any, std::int64_t tag, std::span<std::byte> bytes, std::uint16_t type);
  // Ends it as `aborted`; on the other side too where both have met. A receive that has not: its message stays for a later one,
  // or is refused when it comes, if the receive is given up `for_good`.
  void cancel(Operation operation, const std::string& why, bool for_good = false);
  // In the place of a message that will not be made: what receives it ends as `aborted`.
  void send_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type);
  int source_of(Operation operation) const;  // who sent what a receive from any_source got, once complete

  // Events.
  void on_frame(Link link, const Header& header, Arrival arrival, std::span<const std::byte> payload) override;
  void on_sent(Token token) override;
  void on_stored(Token token) override;
  void on_link_up(Link link, std::uint16_t generation) override;
  void on_link_broken(Link link, const std::string& why) override;
  void lose(int rank, const std::string& why);  // known from elsewhere
  void leave();   // says goodbye; open operations end as aborted
  void retire();  // the same, but goes on carrying what passes through this rank, until leave()
  bool needed() const;  // whether others reach other nodes only through this rank's NICs, and have neither left nor retired

  void now(Time time);  // before events and operations: when they happen
  void poll(Time now);  // after them: does what is due
  Time deadline() const;  // when poll() must run again though nothing happens
  bool idle() const;  // nothing in flight: may be destroyed without loss to others

  Statistics statistics() const;
  std::string report() const;  // what is open and what it waits for, for people

 private:
  void cancel_all();

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hetsp::comm
