// The one thread on which a rank's engine and its transport live.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "c10d/device_transport.h"
#include "c10d/task_queue.h"
#include "c10d/wire_transport.h"
#include "hetsp/comm/engine.h"

namespace hetsp::routed {

// Any thread posts operations; the driver feeds them, and what the wires report, to the engine in the order in which they came.
class Driver {
 public:
  // Called once for every operation, on the driver's thread or, after it has ended, on the caller's: short, and never waiting
  // for another operation. `source` is the rank that a receive from any got its message from.
  using Done = std::function<void(const comm::Outcome&, int source)>;

  // `device`: messages of its memory may be posted as well (a type with comm::kOnDevice), once device_settled() is empty.
  Driver(comm::Topology topology, int rank, comm::EngineOptions options, std::vector<LinkEnd> links, Dialler dialler,
         const std::optional<DeviceSetup>& device = {}, std::optional<SharedNode> shared = {});
  ~Driver();  // close() without a grace

  // The memory must stay until `done`.
  comm::Operation send(int peer, std::int64_t tag, std::span<const std::byte> bytes, std::uint16_t type, Done done);
  comm::Operation receive(int peer_or_any, std::int64_t tag, std::span<std::byte> bytes, std::uint16_t type, Done done);
  void cancel(comm::Operation operation, std::string why, bool for_good = false);  // as the engine's
  void send_given_up(int peer, std::int64_t tag, std::size_t bytes, std::uint16_t type);  // as the engine's: no operation

  comm::Statistics statistics();  // after the end: the last ones

  // What is open here and what it waits for, for people. Never waits long: where this thread stands still, that is the answer.
  std::string report();

  std::string device_settled();  // waits until the lanes of the device are up, or says why not
  void turn_off_device();  // some rank has none, so none has
  DeviceStatistics device_statistics();

  // Lets what was sent arrive, for at most `grace`, then has no messages any more, but goes on carrying those of others.
  void retire(std::chrono::milliseconds grace);
  bool carries();  // retire() has not been carried out, or ranks of this node have no other way out

  // Lets what was sent arrive, for at most `grace`, says goodbye, ends every open operation as aborted, and the thread. Again:
  // changes nothing. Not from `done`.
  void close(std::chrono::milliseconds grace);

 private:
  void run(std::vector<LinkEnd> links, Dialler dialler, std::optional<SharedNode> shared);
  void work(comm::Engine& engine, WireTransport& transport);
  void step(comm::Engine& engine, WireTransport& transport);
  void finish_completed(comm::Engine& engine);
  void take_tasks(comm::Engine& engine, const WireTransport& transport, std::chrono::steady_clock::time_point until);
  void do_tasks();
  void linger(comm::Engine& engine, WireTransport& transport, std::chrono::milliseconds limit,
              const std::function<bool()>& over);

  struct Open {
    Done done;
    bool sends = false, from_any = false;
  };
  comm::Operation post(Open what, std::function<void(comm::Operation)> start);

  const comm::Topology topology_;
  const int rank_;
  const comm::EngineOptions options_;
  TaskQueue queue_;

  const std::optional<DeviceSetup> setup_;
  std::promise<std::string> settled_;
  const std::shared_future<std::string> when_settled_;

  // Of the driver's thread.
  DeviceTransport* device_ = nullptr;  // null without a device
  WireTransport* transport_ = nullptr;  // of use while there is an engine
  comm::Engine* engine_ = nullptr;  // null before it begins and after it has ended
  std::unordered_map<comm::Operation, Open> open_;
  std::size_t open_sends_ = 0;
  std::vector<std::pair<comm::Operation, comm::Outcome>> completed_;
  std::deque<TaskQueue::Task> tasks_;  // taken; one that throws leaves those behind it here
  std::optional<std::chrono::steady_clock::time_point> retire_at_;  // at the latest
  bool leaving_ = false;
  std::chrono::milliseconds grace_{0};
  std::string end_ = "the group was shut down";

  std::mutex mutex_;
  comm::Operation next_ = 1;
  comm::Statistics last_;
  DeviceStatistics last_device_;
  std::thread thread_;
};

}  // namespace hetsp::routed
