// What one thread has to do, handed to it by others.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "c10d/bell.h"

namespace hetsp::routed {

// Tasks in the order in which they were put; after close() no more are taken in, those inside are still handed out.
class TaskQueue {
 public:
  using Task = std::function<void()>;
  using Clock = Bell::Clock;

  // `bell`: what the thread sleeps at; others may ring it too, for what `otherwise` of take() tells.
  explicit TaskQueue(Bell bell = Bell()) : bell_(std::move(bell)) {}

  // False: closed, the task was not taken.
  bool put(Task task) { return add(std::move(task), true); }

  // The same, but leaves the thread asleep: done when something else wakes it.
  bool put_quietly(Task task) { return add(std::move(task), false); }

  void close() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    const Bell bell = bell_;
    lock.unlock();
    bell.ring();
  }

  // For the thread that takes, after close(): it does not sleep any more, and the memory of the bell may go.
  void let_go() {
    const std::scoped_lock lock(mutex_);
    bell_ = Bell();
  }

  // All that is there, at once; empty when the time has come, when closed and nothing is left, or when `otherwise` says that
  // there is something else to do.
  std::vector<Task> take(Clock::time_point until = Clock::time_point::max(), const std::function<bool()>& otherwise = {}) {
    std::vector<Task> tasks;
    if (over(until, otherwise, tasks)) return tasks;
    for (std::uint32_t armed = bell_.arm(); !over(until, otherwise, tasks); armed = bell_.arm()) bell_.wait(armed, until);
    bell_.disarm();
    return tasks;
  }

 private:
  // Whether take() has an answer: then `tasks` are all that is there.
  bool over(Clock::time_point until, const std::function<bool()>& otherwise, std::vector<Task>& tasks) {
    const bool other = (otherwise && otherwise()) || Clock::now() >= until;
    const std::scoped_lock lock(mutex_);
    if (!other && !loud_ && !closed_) return false;
    loud_ = false;
    tasks.swap(tasks_);
    return true;
  }

  bool add(Task task, bool loud) {
    std::unique_lock lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(std::move(task));
    if (!loud || std::exchange(loud_, true)) return true;  // whoever put the first loud one wakes the thread
    const Bell bell = bell_;
    lock.unlock();
    bell.ring();
    return true;
  }

  Bell bell_;
  std::mutex mutex_;
  std::vector<Task> tasks_;
  bool loud_ = false;  // one of them is
  bool closed_ = false;
};

}  // namespace hetsp::routed
