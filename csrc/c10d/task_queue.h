// What one thread has to do, handed to it by others.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace hetsp::routed {

// Tasks in the order in which they were put; after close() no more are taken in, those inside are still handed out.
class TaskQueue {
 public:
  using Task = std::function<void()>;
  using Clock = std::chrono::steady_clock;

  // False: closed, the task was not taken.
  bool put(Task task) {
    {
      const std::scoped_lock lock(mutex_);
      if (closed_) return false;
      tasks_.push_back(std::move(task));
      if (tasks_.size() > 1) return true;  // whoever put the first has woken the thread
    }
    wake_.notify_one();
    return true;
  }

  void close() {
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
    }
    wake_.notify_one();
  }

  // All that is there, at once; empty when the time has come, or when closed and there is nothing left.
  std::vector<Task> take(std::optional<Clock::time_point> until = {}) {
    std::unique_lock lock(mutex_);
    const auto ready = [this] { return !tasks_.empty() || closed_; };
    if (until) {
      wake_.wait_until(lock, *until, ready);
    } else {
      wake_.wait(lock, ready);
    }
    return std::exchange(tasks_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Task> tasks_;
  bool closed_ = false;
};

}  // namespace hetsp::routed
