// What happened on other threads, for a test that waits for it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "c10d/wire.h"

namespace scripted {

// Long enough for a machine that is busy with other things; a test that gets to its end has failed.
constexpr auto for_ever = std::chrono::seconds(60);

// A value that threads change and a test waits for.
template <class T>
class Watched {
 public:
  template <class Change>
  void change(Change how) {
    {
      const std::scoped_lock lock(mutex_);
      how(value_);
    }
    wake_.notify_all();
  }
  // False: it did not become true.
  template <class Condition>
  bool until(Condition condition, std::chrono::milliseconds limit = for_ever) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, limit, [&] { return condition(value_); });
  }
  T now() {
    const std::scoped_lock lock(mutex_);
    return value_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  T value_{};
};

// What a wire reports.
struct Reports {
  std::vector<std::uint64_t> arrived;  // Header::value of the frames
  std::vector<std::size_t> lengths;
  std::vector<hetsp::comm::Token> sent;
  std::vector<std::string> broken;
  bool well = true;  // the payloads were what their headers promised
};

}  // namespace scripted
