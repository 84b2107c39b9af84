// A file system whose calls can be watched, refused and cut short; the fakes of the checkpoint tests are made of it.
#pragma once

#include <fcntl.h>

#include <algorithm>
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
  unlock,
  io_ring
};

inline const char* name(Operation operation) {
  constexpr const char* kNames[] = {"open",   "close",    "pwrite", "pread", "fallocate", "ftruncate",
                                    "fsync",  "fstat",    "stat",   "mkdir", "rmdir",     "unlink",
                                    "rename", "exchange", "list",   "lock",  "unlock",    "io_ring"};
  return kNames[static_cast<int>(operation)];
}

struct Call {
  Operation operation{};
  std::string path = {};       // of the descriptor's file, where the call takes a descriptor
  std::string to = {};              // rename, exchange
  int fd = -1;
  int flags = 0;               // open; else those that the descriptor was opened with
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
      files_[fd] = {path, flags};
    }
    return fd;
  }
  int close(int fd) override {
    Call call = of(Operation::close, fd);
    {
      const std::lock_guard lock(mutex_);
      files_.erase(fd);
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
  void start_writeback(int fd, std::int64_t bytes, std::int64_t offset) override { inner_.start_writeback(fd, bytes, offset); }
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
  // Writes through a ring count as pwrite: refused ones complete with that result, and what is kept is what has completed.
  std::unique_ptr<IoRing> io_ring(unsigned entries, std::string& why_not) override {
    std::unique_ptr<IoRing> made;
    const int result = run({Operation::io_ring}, [&] {
      made = inner_.io_ring(entries, why_not);
      return 0;
    });
    if (result < 0) why_not = "io_uring refused: errno " + std::to_string(-result);
    return made == nullptr ? nullptr : std::make_unique<HookedIoRing>(*this, std::move(made));
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
  class HookedIoRing final : public IoRing {
   public:
    HookedIoRing(HookedFileSystem& fs, std::unique_ptr<IoRing> inner) : fs_(fs), inner_(std::move(inner)) {}
    int write(int fd, const void* data, std::int64_t bytes, std::int64_t offset, std::uint64_t token) override {
      Call call = fs_.of(Operation::pwrite, fd);
      call.bytes = bytes, call.offset = offset, call.data = data;
      const auto verdict = fs_.before(call);
      if (verdict && (*verdict < 0 || shortened(call, verdict) == 0)) {
        refused_.push_back({token, std::min<std::int64_t>(*verdict, 0)});
        calls_[token] = call;
        return 0;
      }
      const int result = inner_->write(fd, data, shortened(call, verdict), offset, token);
      if (result == 0) calls_[token] = call;
      return result;
    }
    int wait(Completion& completion) override {
      if (!refused_.empty()) {
        completion = refused_.back();
        refused_.pop_back();
      } else if (const int result = inner_->wait(completion); result < 0) {
        return result;
      }
      if (const auto found = calls_.find(completion.token); found != calls_.end()) {
        fs_.after(found->second, completion.result);
        calls_.erase(found);
      }
      return 0;
    }
    void wake() override { inner_->wake(); }

   private:
    HookedFileSystem& fs_;
    std::unique_ptr<IoRing> inner_;
    std::vector<Completion> refused_;
    std::map<std::uint64_t, Call> calls_;
  };

  Call of(Operation operation, int fd) {
    const std::lock_guard lock(mutex_);
    const auto found = files_.find(fd);
    Call call{operation, found == files_.end() ? "" : found->second.path};
    call.fd = fd;
    call.flags = found == files_.end() ? 0 : found->second.flags;
    return call;
  }
  // A disk cuts a direct write short at a sector. (A read of nothing would be the end of the file, so those are left alone.)
  static std::int64_t shortened(const Call& call, std::optional<std::int64_t> verdict) {
    const std::int64_t most = verdict ? std::min(*verdict, call.bytes) : call.bytes;
    const bool sectors = verdict && call.operation == Operation::pwrite && (call.flags & O_DIRECT) != 0;
    return sectors ? most / 512 * 512 : most;
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
    const std::int64_t most = shortened(call, verdict);
    const std::int64_t result = verdict && *verdict < 0 ? *verdict : most == 0 ? 0 : make(most);
    after(call, result);
    return result;
  }

  FileSystem& inner_;
  std::mutex mutex_;
  struct Opened {
    std::string path;
    int flags;
  };
  std::map<int, Opened> files_;
};

}  // namespace hetsp::checkpoint
