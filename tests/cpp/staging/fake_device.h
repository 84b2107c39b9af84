// A run time of devices that are threads: each stream is one, which does what is queued on it, in order and in its own time.
//
// What it finds in the host's logic:
//   a missing fence       ThreadSanitizer reports the two accesses, for only events and synchronisation order streams
//   a wrong place         memory of another device, memory that is not pinned, an event of another device: check::fail
//   what is left behind   live(): streams, events, memory and pins that nobody gave back
// before() puts something between two calls of the host. Faults: fail() lets the n-th call of a name throw; break_down() makes
// every call throw from then on, as after a fault of a kernel: what is queued is not done.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"
#include "hetsp/staging/device_runtime.h"
#include "support/check.h"

namespace hetsp::staging {

class FakeDevice final : public DeviceRuntime {
 public:
  explicit FakeDevice(std::uint64_t seed = 0, int slowest_us = 30) : random_(seed), slowest_us_(slowest_us) {}
  ~FakeDevice() override {
    while (!streams_.empty()) destroy(*streams_.begin()->second);
  }

  // For tests ------------------------------------------------------------------------------------------------------------

  // Memory of a device that holds `text`; it is read and written by work on streams alone.
  char* memory(int device, const std::string& text) {
    char* const block = new_block(device, static_cast<std::int64_t>(text.size()));
    std::copy(text.begin(), text.end(), block);
    return block;
  }
  Stream stream(int device) {
    const CurrentDevice current(*this, device);
    return create_stream();
  }
  void run(Stream stream, std::function<void()> kernel) { queue(stream, "kernel", std::move(kernel)); }
  void write(Stream stream, char* to, std::string text) {
    run(stream, [to, text = std::move(text)] { std::copy(text.begin(), text.end(), to); });
  }
  void fail(const std::string& call, std::int64_t nth = 1, std::int64_t times = 1) {
    const std::lock_guard lock(mutex_);
    faults_[call] = {counts_[call] + nth, times};
  }
  void heal() {
    const std::lock_guard lock(mutex_);
    faults_.clear();
  }
  void before(const std::string& call, std::int64_t nth, std::function<void()> action) {  // on the thread that calls
    const std::lock_guard lock(mutex_);
    before_[call] = {counts_[call] + nth, std::move(action)};
  }
  void break_down() {
    const std::lock_guard lock(mutex_);
    broken_ = true;
    changed_.notify_all();
  }
  std::int64_t calls(const std::string& call) {
    const std::lock_guard lock(mutex_);
    return counts_[call];
  }
  std::map<std::string, std::int64_t> all_calls() {
    const std::lock_guard lock(mutex_);
    return counts_;
  }
  std::vector<std::string> log(Stream stream) {  // what was queued on it
    const std::lock_guard lock(mutex_);
    return static_cast<Queue*>(stream)->log;
  }
  std::vector<Stream> streams() {
    const std::lock_guard lock(mutex_);
    std::vector<Stream> all;
    for (const auto& [stream, queue] : streams_) all.push_back(stream);
    return all;
  }
  std::int64_t live() {  // without the memory and the streams of tests
    const std::lock_guard lock(mutex_);
    return static_cast<std::int64_t>(events_.size() + pinned_.size() + streams_.size()) + allocated_;
  }

  // DeviceRuntime --------------------------------------------------------------------------------------------------------

  int current_device() override {
    count("current_device");
    return current();
  }
  void set_device(int device) override {
    count("set_device");
    const std::lock_guard lock(mutex_);
    current_[std::this_thread::get_id()] = device;
  }
  void allow_during_graph_capture() override { count("allow_during_graph_capture"); }

  Stream create_stream() override {
    count("create_stream");
    auto queue = std::make_unique<Queue>();
    queue->device = current();
    Queue* const raw = queue.get();
    raw->thread = std::thread([this, raw] { serve(*raw); });
    const std::lock_guard lock(mutex_);
    streams_[raw] = std::move(queue);
    return raw;
  }
  void destroy_stream(Stream stream) override {
    destroy(*static_cast<Queue*>(stream));
    count("destroy_stream");
  }
  void synchronize_stream(Stream stream) override {
    count("synchronize_stream");
    auto* const queue = static_cast<Queue*>(stream);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return queue->work.empty() && !queue->busy; });
    if (broken_) lost("synchronize_stream");
  }
  Event create_event() override {
    count("create_event");
    auto mark = std::make_unique<Mark>();
    mark->device = current();
    Mark* const raw = mark.get();
    const std::lock_guard lock(mutex_);
    events_[raw] = std::move(mark);
    return raw;
  }
  void destroy_event(Event event) override {
    count("destroy_event");
    const std::lock_guard lock(mutex_);
    Mark* const mark = static_cast<Mark*>(event);
    graveyard_.push_back(std::move(events_.at(mark)));  // work that is queued may still come to it, as in CUDA
    events_.erase(mark);
  }
  void record(Event event, Stream stream) override {
    count("record");
    auto* const mark = static_cast<Mark*>(event);
    if (mark->device != static_cast<Queue*>(stream)->device) check::fail(__FILE__, __LINE__, "event of another device");
    {
      const std::lock_guard lock(mutex_);
      ++mark->recorded;
    }
    queue(stream, "record", [this, mark] {
      const std::lock_guard lock(mutex_);
      ++mark->done;
      changed_.notify_all();
    });
  }
  void wait(Stream stream, Event event) override {
    count("wait");
    auto* const mark = static_cast<Mark*>(event);
    std::int64_t until = 0;
    {
      const std::lock_guard lock(mutex_);
      until = mark->recorded;
    }
    queue(stream, "wait", [this, mark, until] {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return mark->done >= until || broken_; });
    });
  }
  bool done(Event event) override {
    count("done");
    const std::lock_guard lock(mutex_);
    if (broken_) lost("done");
    const Mark& mark = *static_cast<Mark*>(event);
    return mark.done == mark.recorded;
  }
  void synchronize_event(Event event) override {
    count("synchronize_event");
    std::unique_lock lock(mutex_);
    const Mark& mark = *static_cast<Mark*>(event);
    changed_.wait(lock, [&] { return mark.done == mark.recorded || broken_; });
    if (broken_) lost("synchronize_event");
  }

  void* allocate(std::int64_t bytes) override {
    count("allocate");
    void* const block = new_block(current(), bytes);
    const std::lock_guard lock(mutex_);
    ++allocated_;
    return block;
  }
  void free(void* memory) override {
    const std::lock_guard lock(mutex_);
    if (blocks_.erase(static_cast<char*>(memory)) != 1) check::fail(__FILE__, __LINE__, "free of what is no memory");
    --allocated_;
    ++counts_["free"];
  }
  void* allocate_pinned(std::int64_t bytes) override {
    count("allocate_pinned");
    auto memory = std::make_unique<char[]>(static_cast<std::size_t>(bytes));
    char* const raw = memory.get();
    const std::lock_guard lock(mutex_);
    pinned_[raw] = bytes;
    hosts_[raw] = std::move(memory);
    return raw;
  }
  void free_pinned(void* memory) override {
    const std::lock_guard lock(mutex_);
    pinned_.erase(static_cast<char*>(memory));
    if (hosts_.erase(static_cast<char*>(memory)) != 1) check::fail(__FILE__, __LINE__, "free_pinned of what is none");
  }
  void pin(void* memory, std::int64_t bytes) override {
    count("pin");
    const std::lock_guard lock(mutex_);
    pinned_[static_cast<char*>(memory)] = bytes;
  }
  void unpin(void* memory) override {
    const std::lock_guard lock(mutex_);
    if (pinned_.erase(static_cast<char*>(memory)) != 1) check::fail(__FILE__, __LINE__, "unpin of what is not pinned");
  }

  void copy_to_host(void* to, const void* from, std::int64_t bytes, Stream stream) override {
    count("copy_to_host");
    {
      const std::lock_guard lock(mutex_);
      require_inside(pinned_, static_cast<const char*>(to), bytes, "copy to memory that is not pinned");
      require_device(static_cast<Queue*>(stream)->device, static_cast<const char*>(from), bytes);
    }
    queue(stream, "copy", [to, from, bytes] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
  }
  void copy(void* to, const void* from, std::int64_t bytes, Stream stream) override {
    count("copy");
    {
      const std::lock_guard lock(mutex_);
      const int device = static_cast<Queue*>(stream)->device;
      require_device(device, static_cast<const char*>(from), bytes);
      require_device(device, static_cast<const char*>(to), bytes);
    }
    queue(stream, "copy", [to, from, bytes] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
  }
  void gather(const GatherParams& params, Stream stream) override {
    count("gather");
    {
      const std::lock_guard lock(mutex_);
      const int device = static_cast<Queue*>(stream)->device;
      for (int p = 0; p < params.count; ++p) {
        require_device(device, params.pieces[p].from, params.pieces[p].bytes);
        require_device(device, params.to + params.pieces[p].to, params.pieces[p].bytes);
      }
    }
    queue(stream, "gather", [params] {
      for (int p = 0; p < params.count; ++p)
        std::memcpy(params.to + params.pieces[p].to, params.pieces[p].from, params.pieces[p].bytes);
    });
  }
  void breathe(Stream stream) override {
    count("breathe");
    queue(stream, "breathe", [] {});
  }

 private:
  struct Queue {
    int device = 0;
    std::deque<std::function<void()>> work;
    std::vector<std::string> log;
    bool busy = false, stop = false;
    std::thread thread;
  };
  struct Mark {
    int device = 0;
    std::int64_t recorded = 0, done = 0;
  };
  struct Block {
    int device;
    std::int64_t bytes;
    std::unique_ptr<char[]> memory;
  };
  struct Fault {
    std::int64_t first = 0, times = 0;
  };

  [[noreturn]] static void lost(const std::string& call) {
    throw device::DeviceError(call + ": cudaErrorIllegalAddress: an illegal memory access was encountered");
  }
  int current() {
    const std::lock_guard lock(mutex_);
    return current_[std::this_thread::get_id()];
  }
  void count(const std::string& call) {
    std::unique_lock lock(mutex_);
    const std::int64_t n = ++counts_[call];
    if (const auto action = before_.find(call); action != before_.end() && action->second.first == n) {
      lock.unlock();
      action->second.second();
      lock.lock();
    }
    if (broken_) lost(call);
    const auto fault = faults_.find(call);
    if (fault != faults_.end() && n >= fault->second.first && n < fault->second.first + fault->second.times)
      throw device::DeviceError(call + ": cudaErrorLaunchFailure: unspecified launch failure");
  }
  char* new_block(int device, std::int64_t bytes) {
    auto memory = std::make_unique<char[]>(static_cast<std::size_t>(bytes));
    char* const raw = memory.get();
    const std::lock_guard lock(mutex_);
    blocks_[raw] = {device, bytes, std::move(memory)};
    return raw;
  }
  static void require_inside(const std::map<char*, std::int64_t>& ranges, const char* at, std::int64_t bytes,
                             const char* what) {
    for (const auto& [begin, size] : ranges)
      if (at >= begin && at + bytes <= begin + size) return;
    check::fail(__FILE__, __LINE__, what);
  }
  void require_device(int device, const char* at, std::int64_t bytes) {
    for (const auto& [begin, block] : blocks_)
      if (block.device == device && at >= begin && at + bytes <= begin + block.bytes) return;
    check::fail(__FILE__, __LINE__, "memory that is not the device's");
  }
  void queue(Stream stream, const char* name, std::function<void()> work) {
    auto* const queue = static_cast<Queue*>(stream);
    const std::lock_guard lock(mutex_);
    queue->work.push_back(std::move(work));
    queue->log.emplace_back(name);
    changed_.notify_all();
  }
  void serve(Queue& queue) {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return !queue.work.empty() || queue.stop; });
      if (queue.work.empty()) return;
      auto work = std::move(queue.work.front());
      queue.work.pop_front();
      queue.busy = true;
      const bool skip = broken_;
      const auto delay = std::chrono::microseconds(slowest_us_ > 0 ? random_() % static_cast<unsigned>(slowest_us_) : 0);
      lock.unlock();
      if (!skip) {
        if (delay.count() > 0) std::this_thread::sleep_for(delay);
        work();
      }
      work = nullptr;
      lock.lock();
      queue.busy = false;
      changed_.notify_all();
    }
  }
  void destroy(Queue& queue) {
    {
      const std::lock_guard lock(mutex_);
      queue.stop = true;
      changed_.notify_all();
    }
    queue.thread.join();
    const std::lock_guard lock(mutex_);
    streams_.erase(&queue);
  }

  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::mt19937_64 random_;
  const int slowest_us_;
  std::map<std::thread::id, int> current_;
  std::map<Queue*, std::unique_ptr<Queue>> streams_;
  std::map<Mark*, std::unique_ptr<Mark>> events_;
  std::vector<std::unique_ptr<Mark>> graveyard_;
  std::map<char*, Block> blocks_;
  std::map<char*, std::int64_t> pinned_;
  std::map<char*, std::unique_ptr<char[]>> hosts_;
  std::int64_t allocated_ = 0;
  std::map<std::string, std::int64_t> counts_;
  std::map<std::string, Fault> faults_;
  std::map<std::string, std::pair<std::int64_t, std::function<void()>>> before_;
  bool broken_ = false;
};

}  // namespace hetsp::staging
