// A thread that does tasks one after the other, begun when the first one comes.
#pragma once

#include <functional>
#include <mutex>
#include <thread>

#include "c10d/task_queue.h"

namespace hetsp::routed {

class TaskThread {
 public:
  ~TaskThread() { close(); }

  // False: closed, the task was not taken. Tasks must not throw.
  bool put(std::function<void()> task) {
    {
      const std::scoped_lock lock(mutex_);
      if (!closed_ && !thread_.joinable()) thread_ = std::thread([this] { run(); });
    }
    return queue_.put(std::move(task));
  }

  // Does what is there, then ends. Not from the thread itself.
  void close() {
    queue_.close();
    std::thread thread;
    {
      const std::scoped_lock lock(mutex_);
      closed_ = true;
      thread.swap(thread_);
    }
    if (thread.joinable()) thread.join();
  }

 private:
  void run() {
    for (auto tasks = queue_.take(); !tasks.empty(); tasks = queue_.take()) {
      for (auto& task : tasks) {
        task();
        task = nullptr;  // what it holds goes now, not with the last of the batch
      }
    }
  }

  TaskQueue queue_;
  std::mutex mutex_;
  std::thread thread_;
  bool closed_ = false;
};

}  // namespace hetsp::routed
