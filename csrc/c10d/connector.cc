#include "c10d/connector.h"

#include <chrono>
#include <exception>
#include <utility>

namespace hetsp::routed {

namespace {
constexpr auto pause = std::chrono::milliseconds(50);  // between attempts that fail at once, such as on a NIC without a carrier
}

Connector::Connector(const Dialler& dialler, comm::Link link, std::uint16_t generation, std::unique_ptr<Wire> old,
                     std::function<void(Connection)> connected)
    : thread_([this, &dialler, link, generation, old = std::move(old), connected = std::move(connected)]() mutable {
        old.reset();
        run(dialler, link, generation, connected);
      }) {}

Connector::~Connector() {
  {
    const std::scoped_lock lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Connector::run(const Dialler& dialler, comm::Link link, std::uint16_t generation,
                    const std::function<void(Connection)>& connected) {
  for (;;) {
    {
      const std::scoped_lock lock(mutex_);
      if (ending_) return;
    }
    try {
      return connected(dialler.dial(link, generation));
    } catch (const std::exception&) {
      // not yet: the other end is not there, or the network is not
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, pause, [this] { return ending_; });
  }
}

}  // namespace hetsp::routed
