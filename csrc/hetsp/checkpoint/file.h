// An open file or directory of a FileSystem: owns the descriptor, resumes what a signal interrupted and what came back short.
// Every failure is an IoError that names the operation and the path.
#pragma once

#include <cstdint>
#include <string>

#include "hetsp/checkpoint/file_system.h"

namespace hetsp::checkpoint {

class File {
 public:
  // flags as open(2); O_CLOEXEC is always added, so that a process which the trainer starts holds no checkpoint open.
  File(FileSystem& fs, std::string path, int flags, unsigned mode = 0666);
  ~File();  // closes without a word: what must be on disk has been synced before
  File(File&& other) noexcept;
  File& operator=(File&&) = delete;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  void write(const void* data, std::int64_t bytes, std::int64_t offset);
  [[nodiscard]] std::int64_t read(void* data, std::int64_t bytes, std::int64_t offset);  // less than `bytes` only at the end
  [[nodiscard]] bool allocate(std::int64_t bytes);  // false where this file system cannot reserve; throws where it is full
  void truncate(std::int64_t bytes);
  // A failed fsync is final: the kernel marks the pages clean, and a second one would succeed over lost data (Rebello et
  // al., USENIX ATC 2020). So only EINTR is tried again.
  void sync();
  [[nodiscard]] FileStatus status();
  [[nodiscard]] bool lock(bool wait);  // false where another process holds it
  void close();                        // throws what close(2) says; the descriptor is gone all the same

  [[nodiscard]] int descriptor() const { return fd_; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  FileSystem& fs_;
  std::string path_;
  int fd_;
};

// Makes the entries of a directory durable: the names that were created, renamed or removed in it.
void sync_directory(FileSystem& fs, const std::string& path);

// "a/b" -> "a", "/b" -> "/", "b" -> ".".
[[nodiscard]] std::string parent_of(const std::string& path);

}  // namespace hetsp::checkpoint
