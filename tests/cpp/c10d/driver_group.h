// The ranks of a group, each with its driver, in one process over cables: what a network does to them is up to the test.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "c10d/driver.h"
#include "c10d/events.h"
#include "c10d/scripted_lane.h"

namespace scripted {

using namespace hetsp;
using namespace hetsp::routed;

// Where both ends of a rail meet on a fresh cable.
class Exchange {
 public:
  Dialler dialler(int rank) {
    return {.dial = [this, rank](comm::Link link, std::uint16_t generation) { return dial(rank, link, generation); },
            .cancel =
                [this, rank] {
                  const std::scoped_lock lock(mutex_);
                  gone_.insert(rank);
                  wake_.notify_all();
                }};
  }

  // While it is down nobody gets through: attempts fail at once.
  void down(int rail, bool is) {
    const std::scoped_lock lock(mutex_);
    down_[rail] = is;
    wake_.notify_all();
  }
  // Those that were connected last, by the rail and the lower rank.
  std::vector<std::shared_ptr<Cable>> cables() {
    const std::scoped_lock lock(mutex_);
    std::vector<std::shared_ptr<Cable>> all;
    for (const auto& [_, meeting] : meetings_)
      if (meeting.cable) all.push_back(meeting.cable);
    return all;
  }
  // Nobody connects to this rank any more, and what is connected carries nothing: those cables.
  std::vector<std::shared_ptr<Cable>> bury(int rank) {
    const std::scoped_lock lock(mutex_);
    buried_.insert(rank);
    wake_.notify_all();
    std::vector<std::shared_ptr<Cable>> of_it;
    for (const auto& [key, meeting] : meetings_)
      if (meeting.cable && (std::get<0>(key) == rank || std::get<1>(key) == rank)) of_it.push_back(meeting.cable);
    for (const auto& cable : of_it) cable->stall(true);
    return of_it;
  }
  // For the rails that are there from the start.
  std::shared_ptr<Cable> lay(int a, int b, int rail) {
    const std::scoped_lock lock(mutex_);
    return meetings_[{std::min(a, b), std::max(a, b), rail}].cable = Cable::make();
  }

 private:
  struct Meeting {
    std::array<std::optional<std::uint16_t>, 2> asks;  // each end's last generation, while it waits
    std::array<std::optional<Connection>, 2> answers;
    std::shared_ptr<Cable> cable;
  };

  Connection dial(int rank, comm::Link link, std::uint16_t generation) {
    std::unique_lock lock(mutex_);
    Meeting& meeting = meetings_[{std::min(rank, link.peer), std::max(rank, link.peer), link.rail}];
    const int side = rank < link.peer ? 0 : 1;
    meeting.asks[side] = generation;
    meeting.answers[side].reset();
    const auto fails = [&] {
      return gone_.contains(rank) || buried_.contains(rank) || buried_.contains(link.peer) || down_[link.rail];
    };
    if (meeting.asks[1 - side] && !fails()) {
      const auto next = static_cast<std::uint16_t>(std::max(generation, *meeting.asks[1 - side]) + 1);
      meeting.cable = Cable::make();
      for (const int end : {0, 1}) {
        meeting.answers[end] = Connection{meeting.cable->end(end), next};
        meeting.asks[end].reset();
      }
      wake_.notify_all();
    }
    wake_.wait(lock, [&] { return meeting.answers[side] || fails(); });
    if (!meeting.answers[side]) {
      meeting.asks[side].reset();
      throw std::runtime_error("nobody there");
    }
    return std::exchange(meeting.answers[side], {}).value();
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::tuple<int, int, int>, Meeting> meetings_;
  std::map<int, bool> down_;
  std::set<int> gone_, buried_;
};

struct GroupOptions {
  int nodes = 1, ranks = 2, nics = 1;  // of a node
  comm::EngineOptions engine{.job = 7, .chunk_bytes = 4096, .eager_bytes = 512, .direct_bytes = 4096};
  bool rails_up = true;  // when the group begins
};

inline comm::Topology make_topology(const GroupOptions& options) {
  std::vector<comm::Node> nodes(static_cast<std::size_t>(options.nodes));
  for (int node = 0; node < options.nodes; ++node) {
    for (int i = 0; i < options.ranks; ++i) nodes[node].ranks.push_back(node * options.ranks + i);
    for (int k = 0; k < options.nics; ++k) nodes[node].nics.push_back({"nic" + std::to_string(k), "", 0});
  }
  return comm::Topology(std::move(nodes));
}

// How an operation ended; a test holds it until the driver has let go of it.
struct Ending {
  int times = 0;
  comm::Outcome outcome;
  int source = -1;
};
using Ends = std::shared_ptr<Watched<Ending>>;

class DriverGroup {
 public:
  explicit DriverGroup(const GroupOptions& options) : topology_(make_topology(options)) {
    const int ranks = topology_.ranks();
    std::vector<std::vector<LinkEnd>> links(static_cast<std::size_t>(ranks));
    const auto join = [&](comm::Stage stage, int a, int b, int rail, const std::shared_ptr<Cable>& cable) {
      for (const auto& [own, peer, side] : {std::tuple(a, b, 0), std::tuple(b, a, 1)})
        links[own].push_back({{stage, peer, rail}, cable ? cable->end(side) : nullptr, 0});
    };
    for (int a = 0; a < ranks; ++a)
      for (int b = a + 1; b < ranks; ++b) {
        join(comm::Stage::control, a, b, 0, fixed_[{comm::Stage::control, a, b}] = Cable::make());
        if (topology_.same_node(a, b)) join(comm::Stage::local, a, b, 0, fixed_[{comm::Stage::local, a, b}] = Cable::make());
      }
    for (int a = 0; a < topology_.nodes(); ++a)
      for (int b = a + 1; b < topology_.nodes(); ++b)
        for (int rail = 0; rail < topology_.rails(a, b); ++rail) {
          const int from = topology_.owner(a, rail), to = topology_.owner(b, rail);
          join(comm::Stage::rail, from, to, rail, options.rails_up ? exchange.lay(from, to, rail) : nullptr);
        }
    for (int rank = 0; rank < ranks; ++rank)
      drivers_.push_back(
          std::make_unique<Driver>(topology_, rank, options.engine, std::move(links[rank]), exchange.dialler(rank)));
  }
  ~DriverGroup() { close({}); }
  DriverGroup(const DriverGroup&) = delete;
  DriverGroup& operator=(const DriverGroup&) = delete;

  const comm::Topology& topology() const { return topology_; }
  Driver& driver(int rank) { return *drivers_.at(static_cast<std::size_t>(rank)); }
  Cable& fixed(comm::Stage stage, int a, int b) { return *fixed_.at({stage, std::min(a, b), std::max(a, b)}); }

  // All ranks at once, as they do.
  void close(std::chrono::milliseconds grace) {
    std::vector<std::thread> threads;
    for (const auto& driver : drivers_) threads.emplace_back([&driver, grace] { driver->close(grace); });
    for (auto& thread : threads) thread.join();
  }
  // What a process leaves behind that was killed: every connection of it ends, and nothing was said. Its driver lives on in
  // this process, so first of all nobody hears it.
  void kill(int rank, bool half_in = false) {
    const auto of_it = [rank](const auto& key) { return std::get<1>(key) == rank || std::get<2>(key) == rank; };
    for (const auto& [key, cable] : fixed_)
      if (of_it(key)) cable->stall(true);
    const auto rails = exchange.bury(rank);
    for (const auto& cable : rails) cable->cut("Connection closed by peer", half_in);
    for (const auto& [key, cable] : fixed_)
      if (of_it(key)) cable->cut("Connection closed by peer", half_in && std::get<0>(key) == comm::Stage::local);
  }

  static Driver::Done into(const Ends& ends) {
    return [ends](const comm::Outcome& outcome, int source) {
      ends->change([&](Ending& ending) {
        ++ending.times;
        ending.outcome = outcome;
        ending.source = source;
      });
    };
  }

  Exchange exchange;

 private:
  comm::Topology topology_;
  std::map<std::tuple<comm::Stage, int, int>, std::shared_ptr<Cable>> fixed_;
  std::vector<std::unique_ptr<Driver>> drivers_;
};

inline bool ended(const Ends& ends) {
  return ends->until([](const Ending& ending) { return ending.times > 0; });
}

}  // namespace scripted
