// Writes of ring slots to files, and what is to follow them, in threads of its own.
//
// Each writer thread either keeps several writes under way through an IoRing or makes one pwrite at a time. The ring is tried
// first where it is asked for; a write that it refuses is made by pwrite, and if that succeeds the ring is not used again.
// Other jobs, which sync files, have one more thread, so that the next file's writes need not wait for them. Jobs of a kind
// start in the order in which they came and may end in any. Signals are blocked in all these threads: they belong to the
// program, and an interrupted write would only have to be resumed.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
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
    IoMode best = IoMode::io_uring;
    int writers = 1;  // threads, each with an IoRing of its own
    int depth = 8;    // writes under way in an IoRing
  };
  WriteQueue(FileSystem& fs, const Options& options);
  ~WriteQueue();  // runs all that has come, then ends
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  void write(Write write);
  void later(std::function<void()> job);  // must not throw; jobs may add jobs and writes

 private:
  struct Writer {
    std::unique_ptr<IoRing> ring;  // null: pwrite
    bool given_up = false;         // takes no new writes
    std::string why_not;           // ring is null or given up, though it was asked for
    std::vector<Write> flight;     // by token
    std::vector<std::uint64_t> tokens;  // that are free
    bool waits = false;            // in the ring, where a new write must wake it; guarded by mutex_
    std::thread thread;
  };
  void serve_writes(Writer& writer) noexcept;
  void serve_others() noexcept;
  [[nodiscard]] std::optional<Write> next(Writer& writer, bool wait);
  void start(Writer& writer, Write write);
  void end(Writer& writer, const IoRing::Completion& completion);
  void by_pwrite(Writer& writer, const Write& write, std::int64_t done, std::int64_t refusal);
  static void give_up_ring(Writer& writer, std::int64_t result);
  void ended();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Write> writes_;
  std::deque<std::function<void()>> others_;
  int running_ = 0;  // what runs may add more, so the threads end only when nothing does
  bool stop_ = false;
  std::vector<std::unique_ptr<Writer>> writers_;
  std::thread other_;
};

}  // namespace hetsp::checkpoint
