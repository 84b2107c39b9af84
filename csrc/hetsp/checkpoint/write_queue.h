// Writes of ring slots to files, and what is to follow them, in threads of its own.
//
// Jobs start in the order in which they came and may end in any. Signals are blocked in these threads: they belong to the
// program, and an interrupted write would only have to be resumed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hetsp/checkpoint/file_system.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/io_mode.h"
#include "hetsp/checkpoint/output_file.h"

namespace hetsp::checkpoint {

struct Write {
  OutputFile* file = nullptr;
  const char* data = nullptr;  // data, bytes and offset are multiples of OutputFile::kAlignment
  std::int64_t bytes = 0, offset = 0;
  std::function<void(const std::optional<IoError>& failure)> done;  // called by a thread of the queue; must not throw
};

class WriteQueue {
 public:
  struct Options {
    IoMode best = IoMode::direct;
    int writers = 1;  // threads
  };
  WriteQueue(FileSystem& fs, const Options& options);
  ~WriteQueue();  // runs all that has come, then ends
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  void write(Write write);
  void later(std::function<void()> job);  // must not throw; jobs may add jobs

 private:
  struct Job {
    Write write;                 // where `other` is empty
    std::function<void()> other;
  };
  void push(Job job);
  void serve() noexcept;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  int running_ = 0;  // a job that runs may add one, so the threads end only when none does
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace hetsp::checkpoint
