// Connects a link afresh, however long that takes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "c10d/lane.h"
#include "c10d/wire.h"
#include "hetsp/comm/transport.h"

namespace hetsp::routed {

struct Connection {
  std::unique_ptr<Lane> lane;
  std::uint16_t generation = 0;
};

// Meets the other end of `link` on a fresh connection, of a generation above `generation`. May block, until the Connector that
// asks is told to end (`cancel` of the Dialler makes it throw); throws std::exception where it did not work out.
struct Dialler {
  std::function<Connection(comm::Link link, std::uint16_t generation)> dial;
  std::function<void()> cancel;
};

// One attempt after the other in a thread of its own, until one succeeds: a rail may be dead for hours.
class Connector {
 public:
  // `old`, the wire that is given up, closes first, in the thread. `connected` is called there too, at most once.
  Connector(const Dialler& dialler, comm::Link link, std::uint16_t generation, std::unique_ptr<Wire> old,
            std::function<void(Connection)> connected);
  ~Connector();  // ends the attempts; the Dialler must have been cancelled, or the connection made, lest it wait for an attempt

 private:
  void run(const Dialler& dialler, comm::Link link, std::uint16_t generation, const std::function<void(Connection)>& connected);

  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace hetsp::routed
