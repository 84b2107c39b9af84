// The system calls that checkpoints are made of, one function each.
//
// All file access of the room goes through this interface, so that tests can fail any call, cut transfers short, and replay
// a recording up to every instant at which power could go. A call is made once: EINTR and short transfers are reported as
// they come, and resumed above (File). Each function returns what the call returns, or minus the errno.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "hetsp/checkpoint/io_ring.h"

namespace hetsp::checkpoint {

struct FileStatus {
  std::int64_t bytes = 0;
  bool directory = false;
  std::uint64_t device = 0, inode = 0;
};

class FileSystem {
 public:
  FileSystem() = default;
  virtual ~FileSystem() = default;
  FileSystem(const FileSystem&) = delete;
  FileSystem& operator=(const FileSystem&) = delete;

  virtual int open(const std::string& path, int flags, unsigned mode) = 0;  // a descriptor; flags and mode as open(2)
  virtual int close(int fd) = 0;
  virtual std::int64_t pwrite(int fd, const void* data, std::int64_t bytes, std::int64_t offset) = 0;  // bytes written
  virtual std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) = 0;         // bytes read; 0: end
  virtual int fallocate(int fd, std::int64_t bytes) = 0;  // reserves [0, bytes) and makes the file as long
  virtual int ftruncate(int fd, std::int64_t bytes) = 0;
  virtual int fsync(int fd) = 0;
  virtual void start_writeback(int /*fd*/, std::int64_t /*bytes*/, std::int64_t /*offset*/) {}  // a hint; promises nothing
  virtual int fstat(int fd, FileStatus& status) = 0;
  virtual int stat(const std::string& path, FileStatus& status) = 0;  // of the link itself, where it is one

  virtual int mkdir(const std::string& path, unsigned mode) = 0;
  virtual int rmdir(const std::string& path) = 0;
  virtual int unlink(const std::string& path) = 0;
  virtual int rename(const std::string& from, const std::string& to) = 0;    // replaces a file or an empty directory `to`
  virtual int exchange(const std::string& from, const std::string& to) = 0;  // both exist; swapped at one instant
  virtual int list(const std::string& path, std::vector<std::string>& names) = 0;  // sorted, without "." and ".."

  virtual int lock(int fd, bool wait) = 0;  // flock, exclusive; -EWOULDBLOCK where another holds it
  virtual int unlock(int fd) = 0;

  // For several writes at a time; null, with the reason, where there is none.
  virtual std::unique_ptr<IoRing> io_ring(unsigned /*entries*/, std::string& why_not) {
    why_not = "this file system has no io_uring";
    return nullptr;
  }
};

// The real one. Without state: one instance serves all threads.
class PosixFileSystem final : public FileSystem {
 public:
  int open(const std::string& path, int flags, unsigned mode) override;
  int close(int fd) override;
  std::int64_t pwrite(int fd, const void* data, std::int64_t bytes, std::int64_t offset) override;
  std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) override;
  int fallocate(int fd, std::int64_t bytes) override;
  int ftruncate(int fd, std::int64_t bytes) override;
  int fsync(int fd) override;
  void start_writeback(int fd, std::int64_t bytes, std::int64_t offset) override;
  int fstat(int fd, FileStatus& status) override;
  int stat(const std::string& path, FileStatus& status) override;
  int mkdir(const std::string& path, unsigned mode) override;
  int rmdir(const std::string& path) override;
  int unlink(const std::string& path) override;
  int rename(const std::string& from, const std::string& to) override;
  int exchange(const std::string& from, const std::string& to) override;
  int list(const std::string& path, std::vector<std::string>& names) override;
  int lock(int fd, bool wait) override;
  int unlock(int fd) override;
  std::unique_ptr<IoRing> io_ring(unsigned entries, std::string& why_not) override;
};

}  // namespace hetsp::checkpoint
