// The one thread of a rank that talks to its device and to NCCL: copies, sends, receives, and when each of them is done.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "c10d/device_buffer.h"
#include "c10d/nccl_communicator.h"
#include "c10d/task_queue.h"
#include "hetsp/comm/transport.h"
#include "hetsp/staging/device_runtime.h"

namespace hetsp::routed {

// What a rank needs for lanes of its device.
struct DeviceSetup {
  staging::DeviceRuntime* runtime = nullptr;
  int device = 0;
  std::shared_ptr<const NcclLibrary> nccl;
  std::chrono::milliseconds limit{10000};  // for a lane to come up
};

using LaneId = std::uint64_t;  // of one connection of one link, never used again

// Reported from the thread of the lanes; none may block.
struct DeviceReports {
  std::function<void(LaneId, const nccl::UniqueId&)> named;  // of what this end sends: the other end must join it
  std::function<void(LaneId)> up;                            // both directions have carried something
  std::function<void(LaneId, const std::string& why)> failed;  // at most once, not after close()
  std::function<void(comm::Token)> copied;   // the user's memory is needed no more for this send
  std::function<void(comm::Token)> sent;     // for every send, also where the lane failed or was closed
  std::function<void(LaneId, comm::Arrival, std::shared_ptr<DeviceBuffer>)> arrived;  // in the order of receive()
  std::function<void(comm::Token)> stored;
  std::function<void(const std::string& why)> lost;  // the device, with all that is on it
};

// Two communicators and two streams for each lane, and a stream for copies from users' memory and one for copies into it. No
// stream ever waits for something that another rank has yet to do, but inside NCCL's own kernels; what depends on an arrival is
// queued once the host has seen it. The thread asks for events while any is open (every few microseconds), else it sleeps.
//
// Each lane must be able to make progress beside all others, so each of the 2 * lanes + 2 streams needs a queue to the device
// of its own (CUDA_DEVICE_MAX_CONNECTIONS): whoever makes a group has checked that.
class DeviceLanes {
 public:
  // `lanes`: how many there will be. Throws device::DeviceError where the device cannot be used.
  DeviceLanes(const DeviceSetup& setup, std::size_t chunk_bytes, std::size_t lanes, DeviceReports reports);
  ~DeviceLanes();  // closes all; buffers that were handed out must be back

  // From any thread; each is done in the order of the calls.
  void open(LaneId lane);
  void join(LaneId lane, const nccl::UniqueId& name);  // what the other end sends
  void send(LaneId lane, const std::byte* from, std::size_t bytes, comm::Token token);
  void forward(LaneId lane, std::shared_ptr<DeviceBuffer> buffer, std::size_t bytes, comm::Token token);
  void receive(LaneId lane, std::size_t bytes, comm::Arrival arrival);
  void store(std::shared_ptr<DeviceBuffer> buffer, std::byte* to, std::size_t bytes, comm::Token token);
  void close(LaneId lane);

 private:
  using Clock = std::chrono::steady_clock;
  using Stream = staging::DeviceRuntime::Stream;
  using Event = staging::DeviceRuntime::Event;

  struct Transfer {
    std::shared_ptr<DeviceBuffer> buffer;
    std::size_t bytes = 0;
    std::uint64_t number = 0;  // token or arrival; 0: the first of a direction, which shows that it works
    std::uint64_t copy = 0;    // which fills the buffer; 0: it is filled, or is to be
  };
  struct Direction {
    explicit Direction(bool outward) : sends(outward) {}
    const bool sends;
    Stream stream = nullptr;
    std::unique_ptr<NcclCommunicator> communicator;
    std::deque<Transfer> waiting;  // for the communicator, or for their copies
    std::optional<Transfer> begun;  // NCCL has it, and may put it on the stream as late as its call is over
    std::size_t under_way = 0;
    bool works = false;
  };
  struct Lane {
    Direction out{true}, in{false};
    Clock::time_point until;  // it must be up
    bool up = false, failed = false;
  };
  struct Wait {  // for an event
    Event event = nullptr;
    std::function<void()> then;
  };

  void run();
  void work();
  void begin(Direction& direction, const nccl::UniqueId& name);
  bool launch(LaneId id, Direction& direction);  // false: the communicator has failed
  void finished(LaneId id, bool sends, const Transfer& transfer);
  void drive(LaneId id, Lane& lane, Clock::time_point now, bool ask);
  void fail(LaneId id, Lane& lane, const std::string& why);
  void end(Lane& lane);
  void watch(Stream stream, std::function<void()> then);
  bool poll_events();  // true: one was done
  void poll_lanes(Clock::time_point now);
  [[nodiscard]] bool waiting() const;  // for an event
  [[nodiscard]] Clock::time_point next_poll(Clock::time_point now) const;
  void settle();

  std::atomic<bool> closing_{false};
  const DeviceSetup setup_;
  staging::DeviceRuntime& runtime_;
  DeviceReports reports_;
  TaskQueue queue_;

  // Of the thread.
  std::shared_ptr<DeviceBufferPool> buffers_;
  Stream copies_in_ = nullptr, copies_out_ = nullptr;
  std::map<LaneId, Lane> lanes_;
  std::map<Stream, std::deque<Wait>> waits_;
  std::vector<Stream> idle_streams_;
  std::vector<Event> free_events_, all_events_;
  std::uint64_t copies_begun_ = 0, copies_done_ = 0;  // from users' memory; they are done in order
  Clock::time_point asked_;  // when all communicators were last asked for errors
  struct Later {
    Clock::time_point when;
    LaneId lane;
    std::string why;
  };
  std::vector<Later> later_;  // failures that are told after a while
  std::thread thread_;
};

}  // namespace hetsp::routed
