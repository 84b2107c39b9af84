#include "hetsp/checkpoint/engine.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/quiet_thread.h"
#include "hetsp/checkpoint/write_queue.h"
#include "hetsp/staging/devices.h"
#include "hetsp/staging/ring.h"

namespace hetsp::checkpoint {

namespace {

// Of a device's memory at a time. A transfer of 8 MiB takes a third of a millisecond on PCIe 4: that long training's own may
// have to wait, and a few microseconds between two are no part of it that matters.
constexpr std::int64_t kLargestChunk = std::int64_t{8} << 20;

}  // namespace

// All that threads share. It lives behind a pointer so that a forked child, which has none of the threads and whose locks may
// be held by one of them for ever, can let go of it without a touch.
struct Engine::Parts {
  Parts(const Options& chosen, FileSystem* given)
      : options(chosen),
        fs(given != nullptr ? given : &posix),
        ring(std::in_place, chosen.ring_bytes, chosen.slot_bytes),
        ring_bytes(ring->bytes()),
        devices(std::in_place, chosen.runtime, staging::DeviceCopier::Options{std::min(kLargestChunk, chosen.slot_bytes)}),
        queue(std::in_place, *fs, WriteQueue::Options{chosen.best, chosen.writers}),
        copier(quiet_thread([this] { copy_all(); })) {}

  void copy_all() noexcept {
    // A batch thread preempts nobody when it is woken. As a normal one it took the core of the training thread that had just
    // begun a capture, and so held that call up for a slice of 3 ms in every second save. Refused, it is as good as before.
    const sched_param none{};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
    for (;;) {
      std::shared_ptr<Capture> next;
      std::vector<std::shared_ptr<Capture>> done;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return !waiting.empty() || closed; });
        if (waiting.empty()) return;
        next = std::move(waiting.front());
        waiting.pop_front();
        running = next;
        done.swap(retired);
      }
      next->run(*ring, *queue);
      const std::lock_guard lock(mutex);
      running = nullptr;
    }
  }

  // Ends all threads, after what has begun.
  void end() {
    {
      const std::lock_guard lock(mutex);
      closed = true;
    }
    wake.notify_all();
    const std::lock_guard lock(ending);
    if (copier.joinable()) copier.join();
    queue.reset();
    const std::lock_guard none(beginning);
    devices.reset();
    ring.reset();
  }

  void cancel_uncopied() {
    const std::lock_guard lock(mutex);
    for (const auto& capture : waiting) capture->cancel();
    if (running != nullptr && !running->captured()) running->cancel();
  }

  const int owner = ::getpid();
  const Options options;
  PosixFileSystem posix;
  FileSystem* const fs;
  std::optional<staging::Ring> ring;
  const std::int64_t ring_bytes;
  std::optional<staging::Devices> devices;  // the ring is pinned for them
  std::optional<WriteQueue> queue;

  // ending: one thread at a time joins the others. beginning: the devices stay while a capture notes where they stand.
  std::mutex mutex, ending, beginning;
  std::condition_variable wake;
  std::deque<std::shared_ptr<Capture>> waiting;
  std::shared_ptr<Capture> running, newest;
  // What was the newest before. The copier lets go of it: where its memory is the last of the heap, freeing it gives the pages
  // below back to the kernel, and that took 4 ms of the caller of begin().
  std::vector<std::shared_ptr<Capture>> retired;
  std::uint64_t captures = 0;
  bool closed = false;

  std::thread copier;  // last: it uses all above
};

Engine::Engine(const Options& options) : parts_(std::make_unique<Parts>(options, nullptr)) {}
Engine::Engine(const Options& options, FileSystem& fs) : parts_(std::make_unique<Parts>(options, &fs)) {}

Engine::~Engine() {
  abandon();
  if (::getpid() == parts_->owner) return;
  [[maybe_unused]] const Parts* leaked = parts_.release();
}

void Engine::require_own_process() const {
  require(::getpid() == parts_->owner, "checkpoint engine of process ", parts_->owner, " used in its forked child ", ::getpid(),
          "; make one there");
}

std::shared_ptr<Capture> Engine::begin(const std::string& path, std::string header, std::vector<Span> spans,
                                       std::map<int, void*> producers) {
  require_own_process();
  Parts& p = *parts_;
  const std::lock_guard beginning(p.beginning);
  std::uint64_t number = 0;
  {
    const std::lock_guard lock(p.mutex);
    require(!p.closed, "checkpoint engine: begin(", path, ") after close()");
    number = ++p.captures;
  }
  // A child that was forked meanwhile must not wait for waiters that it does not have.
  const auto destroy = [owner = p.owner](Capture* capture) {
    if (::getpid() == owner) delete capture;
  };
  std::shared_ptr<Capture> capture(
      new Capture(*p.fs,
                  {path, std::move(header), std::move(spans), p.options.checksum, p.options.best, number, std::move(producers)},
                  &*p.devices),
      destroy);
  {
    const std::lock_guard lock(p.mutex);
    require(!p.closed, "checkpoint engine: begin(", path, ") after close()");
    p.waiting.push_back(capture);
    if (p.newest != nullptr) p.retired.push_back(std::move(p.newest));
    p.newest = capture;
  }
  p.wake.notify_one();
  return capture;
}

void Engine::close() {
  require_own_process();
  parts_->end();
}

void Engine::abandon() {
  if (::getpid() != parts_->owner) return;
  parts_->cancel_uncopied();
  parts_->end();
}

Checksum Engine::checksum() const { return parts_->options.checksum; }
std::int64_t Engine::ring_bytes() const { return parts_->ring_bytes; }

IoMode Engine::io() const {
  require_own_process();
  const std::lock_guard lock(parts_->mutex);
  return parts_->newest != nullptr ? parts_->newest->io() : parts_->options.best;
}

std::string Engine::io_reason() const {
  require_own_process();
  const std::lock_guard lock(parts_->mutex);
  return parts_->newest != nullptr ? parts_->newest->io_reason() : "";
}

}  // namespace hetsp::checkpoint
