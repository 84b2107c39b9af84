// A file system whose calls can be watched, refused and cut short; the fakes of the checkpoint tests are made of it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "hetsp/checkpoint/file_system.h"

namespace hetsp::checkpoint {

enum class Operation {
  open,
  close,
  pwrite,
  pread,
  fallocate,
  ftruncate,
  fsync,
  fstat,
  stat,
  mkdir,
  rmdir,
  unlink,
  rename,
  exchange,
  list,
  lock,
  unlock
};

inline const char* name(Operation operation) {
  constexpr const char* kNames[] = {"open",  "close", "pwrite", "pread",  "fallocate", "ftruncate", "fsync", "fstat", "stat",
                                    "mkdir", "rmdir", "unlink", "rename", "exchange",  "list",      "lock",  "unlock"};
  return kNames[static_cast<int>(operation)];
}

struct Call {
  Operation operation{};
  std::string path = {};       // of the descriptor's file, where the call takes a descriptor
  std::string to = {};              // rename, exchange
  int fd = -1;
  int flags = 0;               // open
  std::int64_t bytes = 0;      // asked for: pwrite, pread, fallocate, ftruncate
  std::int64_t offset = 0;     // pwrite, pread
  const void* data = nullptr;  // pwrite; valid during the call
};

class HookedFileSystem : public FileSystem {
 public:
  explicit HookedFileSystem(FileSystem& inner) : inner_(inner) {}

  int open(const std::string& path, int flags, unsigned mode) override {
    Call call{Operation::open, path};
    call.flags = flags;
    const int fd = run(call, [&] { return inner_.open(path, flags, mode); });
    if (fd >= 0) {
      const std::lock_guard lock(mutex_);
      paths_[fd] = path;
    }
    return fd;
  }
  int close(int fd) override {
    Call call = of(Operation::close, fd);
    {
      const std::lock_guard lock(mutex_);
      paths_.erase(fd);
    }
    int real = 0;  // a refused close frees the descriptor too, as Linux does
    bool ran = false;
    const int result = run(call, [&] { return ran = true, real = inner_.close(fd); });
    if (!ran) inner_.close(fd);
    return result;
  }
  std::int64_t pwrite(int fd, const void* data, std::int64_t bytes, std::int64_t offset) override {
    Call call = of(Operation::pwrite, fd);
    call.bytes = bytes, call.offset = offset, call.data = data;
    return transfer(call, [&](std::int64_t most) { return inner_.pwrite(fd, data, most, offset); });
  }
  std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) override {
    Call call = of(Operation::pread, fd);
    call.bytes = bytes, call.offset = offset;
    return transfer(call, [&](std::int64_t most) { return inner_.pread(fd, data, most, offset); });
  }
  int fallocate(int fd, std::int64_t bytes) override {
    Call call = of(Operation::fallocate, fd);
    call.bytes = bytes;
    return run(call, [&] { return inner_.fallocate(fd, bytes); });
  }
  int ftruncate(int fd, std::int64_t bytes) override {
    Call call = of(Operation::ftruncate, fd);
    call.bytes = bytes;
    return run(call, [&] { return inner_.ftruncate(fd, bytes); });
  }
  int fsync(int fd) override {
    return run(of(Operation::fsync, fd), [&] { return inner_.fsync(fd); });
  }
  int fstat(int fd, FileStatus& s) override {
    return run(of(Operation::fstat, fd), [&] { return inner_.fstat(fd, s); });
  }
  int stat(const std::string& path, FileStatus& s) override {
    return run({Operation::stat, path}, [&] { return inner_.stat(path, s); });
  }
  int mkdir(const std::string& path, unsigned mode) override {
    return run({Operation::mkdir, path}, [&] { return inner_.mkdir(path, mode); });
  }
  int rmdir(const std::string& path) override {
    return run({Operation::rmdir, path}, [&] { return inner_.rmdir(path); });
  }
  int unlink(const std::string& path) override {
    return run({Operation::unlink, path}, [&] { return inner_.unlink(path); });
  }
  int rename(const std::string& from, const std::string& to) override {
    return run({Operation::rename, from, to}, [&] { return inner_.rename(from, to); });
  }
  int exchange(const std::string& from, const std::string& to) override {
    return run({Operation::exchange, from, to}, [&] { return inner_.exchange(from, to); });
  }
  int list(const std::string& path, std::vector<std::string>& names) override {
    return run({Operation::list, path}, [&] { return inner_.list(path, names); });
  }
  int lock(int fd, bool wait) override {
    return run(of(Operation::lock, fd), [&] { return inner_.lock(fd, wait); });
  }
  int unlock(int fd) override {
    return run(of(Operation::unlock, fd), [&] { return inner_.unlock(fd); });
  }

 protected:
  // Minus an errno: the call is not made and returns that. n >= 0: a transfer moves at most n bytes. Nothing: it goes
  // through. May be called by several threads at once, as may after().
  virtual std::optional<std::int64_t> before(const Call& /*call*/) { return std::nullopt; }
  virtual void after(const Call& /*call*/, std::int64_t /*result*/) {}

 private:
  Call of(Operation operation, int fd) {
    const std::lock_guard lock(mutex_);
    const auto found = paths_.find(fd);
    Call call{operation, found == paths_.end() ? "" : found->second};
    call.fd = fd;
    return call;
  }
  template <class Make>
  int run(const Call& call, const Make& make) {
    const auto verdict = before(call);
    const int result = verdict && *verdict < 0 ? static_cast<int>(*verdict) : make();
    after(call, result);
    return result;
  }
  template <class Make>
  std::int64_t transfer(const Call& call, const Make& make) {
    const auto verdict = before(call);
    const std::int64_t result =
        verdict && *verdict <= 0 ? *verdict : make(verdict ? std::min(*verdict, call.bytes) : call.bytes);
    after(call, result);
    return result;
  }

  FileSystem& inner_;
  std::mutex mutex_;
  std::map<int, std::string> paths_;
};

}  // namespace hetsp::checkpoint
