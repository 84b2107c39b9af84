// Writes that are under way together, as io_uring takes them: submitted by one thread, which then waits for any to end.
//
// io_uring/ is the kernel's, through liburing; no_io_uring/ stands in where liburing was not found when this was built.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace hetsp::checkpoint {

class IoRing {
 public:
  static constexpr std::uint64_t kWoken = ~std::uint64_t{0};
  struct Completion {
    std::uint64_t token;  // kWoken: wake() was called
    std::int64_t result;  // bytes written, or minus an errno
  };

  IoRing() = default;
  virtual ~IoRing() = default;
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;

  // Starts a write; data stays valid until its completion. Returns 0, or minus an errno: then nothing was started.
  virtual int write(int fd, const void* data, std::int64_t bytes, std::int64_t offset, std::uint64_t token) = 0;
  virtual int wait(Completion& completion) = 0;  // 0, or minus an errno, EINTR among them
  virtual void wake() = 0;                       // from any thread: ends the wait() under way or the next one
};

// For up to `entries` writes at a time. Null, with the reason in words, where the system or this build has none: containers
// commonly refuse io_uring_setup (seccomp).
[[nodiscard]] std::unique_ptr<IoRing> open_io_ring(unsigned entries, std::string& why_not);

}  // namespace hetsp::checkpoint
