// One new file that is written in large aligned pieces by any number of threads: O_DIRECT where it is taken, else through the
// page cache.
//
// Nothing touches the disk before the first write. O_DIRECT may be refused when the file is opened or, on some stacks, only at
// the first write (EINVAL, EOPNOTSUPP, EPERM); then the file is opened again without it and the write repeated. Space is
// reserved before the first byte, so that a full disk is found at once, where the file system can reserve.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hetsp/checkpoint/file.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/io_mode.h"

namespace hetsp::checkpoint {

// Is this result of a call (minus an errno) the refusal of O_DIRECT or io_uring, not a failure of the disk?
[[nodiscard]] bool is_refusal(std::int64_t result);

class OutputFile {
 public:
  static constexpr std::int64_t kAlignment = 4096;  // bytes

  // bytes: how long it will be. best: IoMode::buffered never asks for O_DIRECT.
  OutputFile(FileSystem& fs, std::string path, std::int64_t bytes, IoMode best);

  // Writes all of it; data, bytes and offset are multiples of kAlignment. `done`: so much of it was written before. Throws
  // IoError; may be called by several threads at once, as may open().
  void write(const char* data, std::int64_t bytes, std::int64_t offset, std::int64_t done = 0);
  // The descriptor to write to from elsewhere, and whether it is O_DIRECT; valid until finish() or discard().
  struct Descriptor {
    int fd;
    bool direct;
  };
  [[nodiscard]] Descriptor open();

  // After the last write, from one thread: cut to its length, synced, closed; throws IoError.
  void finish();
  void discard() noexcept;  // closed; removed, where it is of our making

  [[nodiscard]] const std::string& path() const { return path_; }
  // By whoever writes through the descriptor: that io_uring did, or why it did not.
  void note_ring(bool ringed, const std::string& why_not);

  [[nodiscard]] IoMode mode() const;                      // as it is being written
  [[nodiscard]] std::vector<std::string> reasons() const;  // why not in a better mode of those asked for

 private:
  struct Opened {
    std::shared_ptr<File> file;
    bool direct;
  };
  Opened opened();
  void make();
  void fall_back(const std::shared_ptr<File>& refused, const std::string& when, std::int64_t result);

  FileSystem& fs_;
  const std::string path_;
  const std::int64_t bytes_;
  mutable std::mutex mutex_;
  std::shared_ptr<File> file_;
  std::shared_ptr<File> refused_;  // kept open: another thread may be writing to it
  bool direct_;
  bool made_ = false;
  bool ringed_ = false;
  std::string direct_reason_, ring_reason_;
  std::optional<IoError> failure_;  // of open: every writer gets it
};

}  // namespace hetsp::checkpoint
