#include "c10d/connector.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "c10d/events.h"
#include "c10d/scripted_lane.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::routed;
using scripted::Cable;
using scripted::Watched;

namespace {

constexpr comm::Link rail_link{comm::Stage::rail, 3, 1};

// Dials that block until they are told what becomes of them.
class Blocked {
 public:
  Dialler dialler() {
    return {.dial = [this](comm::Link, std::uint16_t) -> Connection {
              ++dials;
              std::unique_lock lock(mutex_);
              wake_.wait(lock, [this] { return canceled_; });
              throw std::runtime_error("canceled");
            },
            .cancel =
                [this] {
                  const std::scoped_lock lock(mutex_);
                  canceled_ = true;
                  wake_.notify_all();
                }};
  }
  std::atomic<int> dials = 0;

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool canceled_ = false;
};

}  // namespace

TEST(it_tries_until_it_succeeds_and_hands_the_connection_on_once) {
  const auto cable = Cable::make();
  std::atomic<int> dials = 0;
  const Dialler dialler{.dial = [&](comm::Link to, std::uint16_t generation) -> Connection {
                          CHECK(to == rail_link);
                          CHECK_EQ(generation, 6);
                          if (++dials < 3) throw std::runtime_error("not yet");
                          return {cable->end(0), 9};
                        },
                        .cancel = nullptr};
  Watched<int> connected;
  {
    const Connector connector(dialler, rail_link, 6, nullptr, [&](const Connection& connection) {
      CHECK_EQ(connection.generation, 9);
      CHECK(connection.lane != nullptr);
      connected.change([](int& times) { ++times; });
    });
    CHECK(connected.until([](int times) { return times > 0; }));
  }
  CHECK_EQ(connected.now(), 1);
  CHECK_EQ(dials.load(), 3);
  CHECK_EQ(cable->open_ends(), 0);
}

TEST(it_ends_while_it_dials_when_the_dialler_is_canceled) {
  for (const bool at_once : {false, true}) {
    Blocked blocked;
    const Dialler dialler = blocked.dialler();
    {
      const Connector connector(dialler, rail_link, 0, nullptr, [](const Connection&) { CHECK(false); });
      while (!at_once && blocked.dials == 0) std::this_thread::yield();
      dialler.cancel();
    }
    CHECK(blocked.dials <= 2);
  }
}

TEST(it_ends_between_two_attempts) {
  std::atomic<int> dials = 0;
  const Dialler dialler{.dial = [&](comm::Link, std::uint16_t) -> Connection {
                          ++dials;
                          throw std::runtime_error("no carrier");
                        },
                        .cancel = nullptr};
  for (int round = 0; round < 20; ++round) {
    const int before = dials;
    const Connector connector(dialler, rail_link, 0, nullptr, [](const Connection&) { CHECK(false); });
    while (round % 2 == 0 && dials == before) std::this_thread::yield();
  }
}

// The old wire is closed before the first attempt, and not in the thread that asks for it.
TEST(the_old_wire_closes_first) {
  const auto cable = Cable::make();
  auto old = std::make_unique<Wire>(
      cable->end(0), std::make_shared<BufferPool>(100, 1), 2,
      WireEvents{.arrived = [](const auto&) {}, .sent = [](auto) {}, .broken = [](const auto&) { CHECK(false); }});
  CHECK_EQ(cable->open_ends(), 1);
  Watched<int> open_when_dialled;
  open_when_dialled.change([](int& ends) { ends = -1; });
  const Dialler dialler{.dial = [&](comm::Link, std::uint16_t) -> Connection {
                          open_when_dialled.change([&](int& ends) { ends = cable->open_ends(); });
                          return {nullptr, 1};
                        },
                        .cancel = nullptr};
  const Connector connector(dialler, rail_link, 0, std::move(old), [](const Connection&) {});
  CHECK(open_when_dialled.until([](int ends) { return ends == 0; }));
}

TEST_MAIN()
