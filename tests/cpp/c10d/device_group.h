// Drivers of a whole group in one process: wires of scripted cables, devices of threads, and the stub of NCCL.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "c10d/driver.h"
#include "c10d/nccl_library.h"
#include "c10d/scripted_lane.h"
#include "c10d/stub_nccl.h"
#include "comm/wires.h"
#include "staging/fake_device.h"
#include "support/check.h"

namespace device_group {

using namespace hetsp;
using namespace hetsp::routed;
using staging::FakeDevice;

class Stub {
 public:
  Stub() : library_(NcclLibrary::open(HETSP_STUB_NCCL)), handle_(dlopen(HETSP_STUB_NCCL, RTLD_NOW)) {
    for (const char* knob : {"version", "id_fails", "never_ready", "init_fails", "slow", "error_after"}) set(knob, 0);
  }
  ~Stub() { dlclose(handle_); }
  Stub(const Stub&) = delete;
  Stub& operator=(const Stub&) = delete;

  std::shared_ptr<const NcclLibrary> library() const { return library_; }
  void set(const char* knob, std::int64_t value) { find<StubNcclSet>("stub_nccl_set")(knob, value); }
  std::int64_t count(const char* what) { return find<StubNcclCount>("stub_nccl_count")(what); }
  std::string misuse() { return find<StubNcclMisuse>("stub_nccl_misuse")(); }
  void use(FakeDevice& device) {
    fake() = &device;
    find<StubNcclRunner>("stub_nccl_runner")([](void* stream, void (*kernel)(void*), void* argument) {
      fake()->run(stream, [kernel, argument] { kernel(argument); });
    });
  }

 private:
  template <class Function>
  Function find(const char* name) {
    return reinterpret_cast<Function>(dlsym(handle_, name));
  }
  static FakeDevice*& fake() {
    static FakeDevice* device = nullptr;
    return device;
  }
  std::shared_ptr<const NcclLibrary> library_;
  void* handle_;
};

// An operation of a user, from any thread.
class Result {
 public:
  Driver::Done done() {
    return [this](const comm::Outcome& outcome, int) {
      const std::scoped_lock lock(mutex_);
      ++times_;
      outcome_ = outcome;
      wake_.notify_all();
    };
  }
  const comm::Outcome& wait() {
    std::unique_lock lock(mutex_);
    if (!wake_.wait_for(lock, std::chrono::seconds(60), [this] { return times_ > 0; })) {
      outcome_ = {comm::Outcome::Kind::aborted, "the test waited for a minute"};
    }
    return outcome_;
  }
  bool well() { return wait().kind == comm::Outcome::Kind::done; }
  int times() {
    const std::scoped_lock lock(mutex_);
    return times_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  int times_ = 0;
  comm::Outcome outcome_;
};

struct Options {
  comm::EngineOptions engine{.job = 7, .chunk_bytes = 1000, .eager_bytes = 100, .direct_bytes = 3000};
  std::chrono::milliseconds limit{30000};
  std::uint64_t seed = 0;
  int slowest_us = 30;
};

class Group {
 public:
  Group(Stub& stub, comm::Topology topology, Options options = {})
      : stub_(stub), fake_(options.seed, options.slowest_us), topology_(std::move(topology)) {
    stub_.use(fake_);
    for (int rank = 0; rank < topology_.ranks(); ++rank) {
      DeviceSetup setup{.runtime = &fake_, .device = rank, .nccl = stub_.library(), .limit = options.limit};
      drivers_.push_back(std::make_unique<Driver>(topology_, rank, options.engine, links_of(rank), dialler_of(rank), setup));
    }
  }
  ~Group() {
    std::vector<std::thread> closing;
    for (auto& driver : drivers_) closing.emplace_back([&driver] { driver->close(std::chrono::milliseconds(0)); });
    for (std::thread& thread : closing) thread.join();
    drivers_.clear();
    CHECK_EQ(stub_.count("live"), std::int64_t{0});
    CHECK_EQ(stub_.misuse(), std::string());
    if (!broken_) CHECK_EQ(fake_.live(), std::int64_t{0});
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  FakeDevice& fake() { return fake_; }
  Driver& driver(int rank) { return *drivers_[static_cast<std::size_t>(rank)]; }
  int ranks() const { return topology_.ranks(); }

  std::string settled() {  // the reasons of all ranks, a line for each
    std::string all;
    for (auto& driver : drivers_)
      if (const std::string why = driver->device_settled(); !why.empty()) all += why + '\n';
    return all;
  }
  void turn_off() {
    for (auto& driver : drivers_) driver->turn_off_device();
  }
  void break_device() {
    broken_ = true;
    fake_.break_down();
  }

  // The present connection of two ranks.
  std::shared_ptr<scripted::Cable> cable(comm::Stage stage, int a, int b, int rail = 0) {
    const std::scoped_lock lock(mutex_);
    return cables_.at({stage, std::min(a, b), std::max(a, b), rail});
  }
  void kill(int rank) {  // its connections end, as those of a process that dies
    const std::scoped_lock lock(mutex_);
    for (auto& [key, cable] : cables_)
      if (std::get<1>(key) == rank || std::get<2>(key) == rank) cable->cut("Connection closed by peer");
  }

  // A message of a device's memory, or of the host's.
  struct Message {
    std::vector<char> expected;
    char* out = nullptr;
    char* in = nullptr;
    Result sent, received;
    bool arrived() { return sent.well() && received.well() && std::equal(expected.begin(), expected.end(), in); }
  };
  std::unique_ptr<Message> send(int from, int to, std::size_t bytes, std::int64_t tag, bool device = true) {
    auto message = std::make_unique<Message>();
    for (std::size_t i = 0; i < bytes; ++i) message->expected.push_back(static_cast<char>(random_()));
    const std::string text(message->expected.begin(), message->expected.end());
    message->out = device ? fake_.memory(from, text) : host(text);
    message->in = device ? fake_.memory(to, std::string(bytes, 'x')) : host(std::string(bytes, 'x'));
    const std::uint16_t type = device ? comm::kOnDevice | 6 : 6;
    const auto span = [&](char* at) { return std::span(reinterpret_cast<std::byte*>(at), bytes); };
    send_operation = driver(from).send(to, tag, span(message->out), type, message->sent.done());
    receive_operation = driver(to).receive(from, tag, span(message->in), type, message->received.done());
    return message;
  }
  comm::Operation send_operation = 0, receive_operation = 0;  // of the last send()

 private:
  using Key = std::tuple<comm::Stage, int, int, int>;
  struct Meeting {  // of the two ends of a rail that is connected afresh
    bool here[2] = {false, false};
    std::uint16_t generation = 0;
    std::shared_ptr<scripted::Cable> cable;
  };

  char* host(const std::string& text) { return hosts_.emplace_back(std::make_unique<std::string>(text))->data(); }

  std::unique_ptr<Lane> lane(comm::Stage stage, int rank, int peer, int rail) {
    const std::scoped_lock lock(mutex_);
    auto& cable = cables_[{stage, std::min(rank, peer), std::max(rank, peer), rail}];
    if (!cable) cable = scripted::Cable::make();
    return cable->end(rank < peer ? 0 : 1);
  }

  std::vector<LinkEnd> links_of(int rank) {
    std::vector<LinkEnd> links;
    const int home = topology_.node_of(rank);
    for (int peer = 0; peer < topology_.ranks(); ++peer) {
      if (peer == rank) continue;
      links.push_back({{comm::Stage::control, peer, 0}, lane(comm::Stage::control, rank, peer, 0), 0});
      if (topology_.same_node(rank, peer))
        links.push_back({{comm::Stage::local, peer, 0}, lane(comm::Stage::local, rank, peer, 0), 0});
    }
    for (int node = 0; node < topology_.nodes(); ++node) {
      for (int rail = 0; node != home && rail < topology_.rails(home, node); ++rail) {
        if (topology_.owner(home, rail) != rank) continue;
        const int peer = topology_.owner(node, rail);
        links.push_back({{comm::Stage::rail, peer, rail}, lane(comm::Stage::rail, rank, peer, rail), 1});
      }
    }
    return links;
  }

  // Both ends must have asked; then both get the ends of a fresh cable.
  Dialler dialler_of(int rank) {
    auto dial = [this, rank](comm::Link link, std::uint16_t generation) {
      std::unique_lock lock(mutex_);
      const Key key{comm::Stage::rail, std::min(rank, link.peer), std::max(rank, link.peer), link.rail};
      const int side = rank < link.peer ? 0 : 1;
      auto& meeting = meetings_[key];
      if (!meeting || meeting->here[side]) meeting = std::make_shared<Meeting>();
      const std::shared_ptr<Meeting> mine = meeting;
      mine->here[side] = true;
      mine->generation = std::max(mine->generation, static_cast<std::uint16_t>(generation + 1));
      if (mine->here[1 - side]) {
        mine->cable = cables_[key] = scripted::Cable::make();
        meeting = nullptr;
        met_.notify_all();
      } else if (!met_.wait_for(lock, std::chrono::milliseconds(200), [&] { return mine->cable != nullptr; })) {
        if (meeting == mine) meeting = nullptr;
        throw std::runtime_error("nobody answered");
      }
      return Connection{mine->cable->end(side), mine->generation};
    };
    return {dial, [] {}};
  }

  Stub& stub_;
  FakeDevice fake_;
  const comm::Topology topology_;
  std::mutex mutex_;
  std::condition_variable met_;
  std::map<Key, std::shared_ptr<scripted::Cable>> cables_;
  std::map<Key, std::shared_ptr<Meeting>> meetings_;
  std::vector<std::unique_ptr<std::string>> hosts_;
  std::mt19937 random_{7};
  bool broken_ = false;
  std::vector<std::unique_ptr<Driver>> drivers_;
};

}  // namespace device_group
