#include "hetsp/checkpoint/io_ring.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "hetsp/checkpoint/io_error.h"

namespace hetsp::checkpoint {

namespace {

constexpr std::uint64_t kNothing = IoRing::kWoken - 1;

class LinuxIoRing final : public IoRing {
 public:
  // One entry more than asked for: a read of the event descriptor is always under way, so that wake() is a completion, too.
  explicit LinuxIoRing(unsigned entries) : setup_(::io_uring_queue_init(entries + 1, &ring_, 0)) {
    if (setup_ < 0) return;
    ::io_uring_ring_dontfork(&ring_);
    event_ = ::eventfd(0, EFD_CLOEXEC);
    if (event_ < 0) {
      setup_ = -errno;
    } else {
      setup_ = listen();
    }
  }
  ~LinuxIoRing() override {
    if (ring_.ring_fd >= 0 && ring_.sq.sqes != nullptr) ::io_uring_queue_exit(&ring_);
    if (event_ >= 0) ::close(event_);
  }
  LinuxIoRing(const LinuxIoRing&) = delete;
  LinuxIoRing& operator=(const LinuxIoRing&) = delete;

  [[nodiscard]] int setup() const { return setup_; }

  int write(int fd, const void* data, std::int64_t bytes, std::int64_t offset, std::uint64_t token) override {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) return -EBUSY;
    ::io_uring_prep_write(entry, fd, data, static_cast<unsigned>(bytes), static_cast<std::uint64_t>(offset));
    return submit(entry, token);
  }

  int wait(Completion& completion) override {
    do {
      io_uring_cqe* entry = nullptr;
      const int result = ::io_uring_wait_cqe(&ring_, &entry);
      if (result < 0) return result;
      completion = {::io_uring_cqe_get_data64(entry), entry->res};
      ::io_uring_cqe_seen(&ring_, entry);
    } while (completion.token == kNothing);
    return completion.token == kWoken ? listen() : 0;
  }

  void wake() override {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(event_, &one, sizeof one);  // fails only where it is set already
  }

 private:
  int listen() {
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    if (entry == nullptr) return -EBUSY;
    ::io_uring_prep_read(entry, event_, &heard_, sizeof heard_, 0);
    return submit(entry, kWoken);
  }

  int submit(io_uring_sqe* entry, std::uint64_t token) {
    ::io_uring_sqe_set_data64(entry, token);
    int result = ::io_uring_submit(&ring_);
    while (result == -EINTR) result = ::io_uring_submit(&ring_);
    if (result == 1) return 0;
    // The entry stays in the queue and would go out with the next one: make it do nothing then.
    ::io_uring_prep_nop(entry);
    ::io_uring_sqe_set_data64(entry, kNothing);
    return result < 0 ? result : -EAGAIN;
  }

  io_uring ring_{};
  int event_ = -1;
  int setup_;
  std::uint64_t heard_ = 0;
};

}  // namespace

std::unique_ptr<IoRing> open_io_ring(unsigned entries, std::string& why_not) {
  auto ring = std::make_unique<LinuxIoRing>(entries);
  if (ring->setup() == 0) return ring;
  why_not = "io_uring refused: " + describe_errno(-ring->setup());
  return nullptr;
}

}  // namespace hetsp::checkpoint
