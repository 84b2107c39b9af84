// The engine's transport over wires.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "c10d/buffer.h"
#include "c10d/connector.h"
#include "c10d/lane.h"
#include "c10d/sentinel.h"
#include "c10d/shared_link.h"
#include "c10d/shared_node.h"
#include "c10d/task_queue.h"
#include "c10d/wire.h"
#include "hetsp/comm/transport.h"

namespace hetsp::routed {

// A link as it is when the group forms. Without a lane it is down, and will be connected: rails only. Links to ranks with which
// memory is shared are not among them.
struct LinkEnd {
  comm::Link link;
  std::unique_ptr<Lane> lane;
  std::uint16_t generation = 0;
};

// Lives on the driver's thread, but for what its wires and connectors report: they put that into `events`, the driver's queue,
// as tasks for this thread. Frames are copied into buffers of its own before they go out, so a user's memory is never on a
// wire. Links in shared memory have no threads: what they bring is taken by receive(), and rings the bell that the driver
// sleeps at.
class WireTransport : public comm::Transport {
 public:
  using Complete = std::function<void(comm::Operation, const comm::Outcome&)>;

  WireTransport(std::size_t payload, std::size_t control_payload, Dialler dialler, std::optional<SharedNode> shared,
                TaskQueue& events, Complete complete);
  ~WireTransport() override;  // close()

  void start(comm::Listener& engine, std::vector<LinkEnd> links);  // from here on the engine hears what happens
  void close();  // every wire and connector; nothing is put into `events` after it

  // Time passes for the transport too: poll() no later than deadline().
  void poll(std::chrono::steady_clock::time_point now);
  std::chrono::steady_clock::time_point deadline() const;
  bool ready() const;  // receive() has something to do
  void receive();      // takes a few frames of each link in shared memory

  std::string report() const;  // of the links, for people

  // Answers to what the engine asked that need no waiting; true if there was one. The driver calls it until there is none.
  bool deliver();

  void send(comm::Link link, const comm::Header& header, std::span<const std::byte> payload, comm::Token token) override;
  void forward(comm::Link link, const comm::Header& header, comm::Arrival arrival, comm::Token token) override;
  void store(comm::Arrival arrival, std::byte* destination, comm::Token token) override;
  void release(comm::Arrival arrival) override;
  void reset(comm::Link link) override;
  void complete(comm::Operation operation, const comm::Outcome& outcome) override;

 private:
  struct End {
    std::unique_ptr<Wire> wire;  // null while down
    std::unique_ptr<Connector> connector;  // not null while down, and maybe for a while after it
    std::uint16_t generation = 0;
    bool down = false;
    std::uint64_t incarnation = 0;  // what a wire reports after it was replaced is of no interest
  };
  struct Shared {
    explicit Shared(SharedLink of) : link(std::move(of)) {}
    SharedLink link;
    bool gone = false;  // its process has ended, or left: what it has written is still to be read
    bool told = false;
  };
  struct Arrived {
    std::shared_ptr<Buffer>
        buffer;  // null: still in the ring of a link in shared memory, for as long as the engine looks at it
    std::span<std::byte> payload;
  };
  using Key = std::tuple<comm::Stage, int, int>;
  static Key key(comm::Link link) { return {link.stage, link.peer, link.rail}; }

  End& end(comm::Link link);
  bool current(comm::Link link, std::uint64_t incarnation);
  void open(comm::Link link, std::unique_ptr<Lane> lane);
  void connect(comm::Link link);
  void transmit(comm::Link link, std::shared_ptr<Buffer> buffer, std::size_t payload, comm::Token token);
  void arrive(comm::Link link, std::shared_ptr<Buffer> buffer);
  bool arrive(int peer, Shared& shared);
  void watch();

  std::shared_ptr<BufferPool> small_, control_, large_;
  Dialler dialler_;
  TaskQueue& events_;
  Complete complete_;
  comm::Listener* engine_ = nullptr;
  std::map<Key, End> ends_;
  std::optional<SharedNode> node_;
  std::map<int, Shared> shared_;  // [peer]
  std::unique_ptr<Sentinel> sentinel_;
  std::unordered_map<comm::Arrival, Arrived> arrivals_;
  comm::Arrival next_arrival_ = 1;
  // Control links inside the node that have broken, while the local link to the same rank has not.
  struct Suspect {
    comm::Link link;
    std::string why;
    std::chrono::steady_clock::time_point until;
  };
  std::deque<Suspect> suspects_;  // the oldest first
  std::vector<comm::Token> sent_, stored_;
};

}  // namespace hetsp::routed
