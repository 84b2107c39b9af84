// The engine's transport for memory of a device: chunks of it travel by NCCL, all else over the wires as before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "c10d/device_lanes.h"
#include "c10d/task_queue.h"
#include "hetsp/comm/transport.h"

namespace hetsp::routed {

struct DeviceStatistics {
  std::uint64_t chunks_sent = 0, chunks_received = 0;  // by NCCL
  std::uint64_t bytes_sent = 0, bytes_received = 0;
  std::uint64_t lanes_failed = 0;
};

// Stands between the engine and the wires: a Transport for the one, a Listener of the other.
//
// Each local link and each rail has a lane: two communicators of NCCL, one for each direction. When a connection begins, each
// end makes the name of what it sends and tells it over the connection (Kind::lane); the lane is up once both directions have
// carried something, and only then is a rail that was connected afresh up for the engine. A chunk of a device's memory is
// copied into a buffer of the lanes, so that the user's memory is on no wire; its header goes over the wire at once, followed
// by how long the payload is and which of the lane it is, and the payload by ncclSend. The other end posts ncclRecv when the
// header comes. A lane's sends and the headers have one order, so the receives match; frames that come after a chunk wait
// for it, as they would on one wire, and what NCCL holds up therefore looks to the engine like a rail that is silent.
//
// A lane that fails is a link that broke: a rail is connected afresh, with new communicators; inside a node it is the end of
// the group, as when a local connection breaks. Lives on the driver's thread.
class DeviceTransport : public comm::Transport, public comm::Listener {
 public:
  // `settled` hears once, from a task, whether all lanes of the links that are up at the start have come up: empty, or why
  // not. Until then no message of a device's memory may be posted, nor after turn_off().
  using Settled = std::function<void(const std::string& why)>;

  DeviceTransport(comm::Transport& wires, const DeviceSetup& setup, std::uint64_t job, std::size_t chunk_bytes,
                  TaskQueue& events, Settled settled);
  ~DeviceTransport() override;  // close()

  void start(comm::Listener& engine, const std::vector<comm::Link>& links);  // before the wires start: links that have a lane
  void turn_off();  // some rank has no lanes: none has
  void close();  // every lane; nothing is put into `events` after it
  bool deliver();  // as WireTransport's
  [[nodiscard]] const DeviceStatistics& statistics() const { return counts_; }

  void send(comm::Link link, const comm::Header& header, std::span<const std::byte> payload, comm::Token token) override;
  void forward(comm::Link link, const comm::Header& header, comm::Arrival arrival, comm::Token token) override;
  void store(comm::Arrival arrival, std::byte* destination, comm::Token token) override;
  void release(comm::Arrival arrival) override;
  void reset(comm::Link link) override;
  void complete(comm::Operation operation, const comm::Outcome& outcome) override;  // once no copy reads its memory any more

  void on_frame(comm::Link link, const comm::Header& header, comm::Arrival arrival,
                std::span<const std::byte> payload) override;
  void on_sent(comm::Token token) override;
  void on_stored(comm::Token token) override;
  void on_link_up(comm::Link link, std::uint16_t generation) override;
  void on_link_broken(comm::Link link, const std::string& why) override;

 private:
  // What has arrived and waits for a chunk before it, or for itself.
  struct Held {
    comm::Link link;
    comm::Header header;
    comm::Arrival arrival = 0;  // of a chunk: of the wires, or this transport's own
    std::vector<std::byte> payload;  // of a small frame: the wires lend theirs for the time of the call alone
    bool device = false, ready = true;  // a chunk in the memory of the device, which has come
  };
  struct End {
    LaneId lane = 0;  // 0: none
    std::uint16_t generation = 0;
    bool up = false;
    bool told = false;  // the engine knows that the link is up: from the start, but for rails
    std::uint32_t frames_sent = 0, frames_received = 0;
    std::deque<Held> held;
  };
  struct Arrived {
    std::shared_ptr<DeviceBuffer> buffer;
    std::size_t bytes = 0;
  };
  using Key = std::tuple<comm::Stage, int, int>;
  static Key key(comm::Link link) { return {link.stage, link.peer, link.rail}; }

  End* end(comm::Link link);
  DeviceReports reports();
  void begin(comm::Link link, End& end);
  void stop(End& end, bool deliver_held);
  void flush(End& end);
  void pass(const Held& held);
  void announce(comm::Link link, const comm::Header& header, std::size_t bytes);
  void on_chunk(comm::Link link, End& end, const comm::Header& header, std::span<const std::byte> payload);
  void on_named(LaneId lane, const nccl::UniqueId& name);
  void on_up(LaneId lane);
  void lane_failed(comm::Link link, End& end, const std::string& why, bool tell);
  void broken(comm::Link link, End& end, const std::string& why);
  void settle(const std::string& why);
  comm::Link link_of(LaneId lane) const { return links_.at(lane); }

  comm::Transport& wires_;
  const DeviceSetup setup_;
  const std::uint64_t job_;
  const std::size_t chunk_bytes_;
  TaskQueue& events_;
  Settled settled_;  // null once told
  std::unique_ptr<DeviceLanes> lanes_;  // null: off
  comm::Listener* engine_ = nullptr;
  std::map<Key, End> ends_;
  std::unordered_map<LaneId, comm::Link> links_;  // of lanes that are open
  std::size_t coming_up_ = 0;  // of the first lanes
  LaneId next_lane_ = 1;
  comm::Arrival next_arrival_;
  std::unordered_map<comm::Arrival, Arrived> arrivals_;
  std::uint64_t copies_begun_ = 0, copies_done_ = 0;
  struct Ending {
    std::uint64_t copies = 0;  // that must be done
    comm::Operation operation = 0;
    comm::Outcome outcome;
  };
  std::deque<Ending> endings_;
  std::vector<comm::Token> sent_;
  DeviceStatistics counts_;
};

}  // namespace hetsp::routed
