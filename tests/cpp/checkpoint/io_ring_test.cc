#include "hetsp/checkpoint/io_ring.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <set>
#include <thread>

#include "checkpoint/scratch_directory.h"
#include "checkpoint/seccomp_refusal.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

std::unique_ptr<IoRing> ring_or_note(unsigned entries) {
  std::string why_not;
  auto ring = open_io_ring(entries, why_not);
  CHECK_EQ(ring == nullptr, !why_not.empty());
  if (ring == nullptr) std::printf("note: not run here: %s\n", why_not.c_str());
  return ring;
}

}  // namespace

TEST(writes_end_in_any_order_each_once) {
  const auto ring = ring_or_note(4);
  if (ring == nullptr) return;
  const ScratchDirectory scratch;
  const int fd = ::open((scratch / "a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const std::string text = "abcdefghijklmnopqrst";
  for (std::uint64_t round = 0; round < 5; ++round) {
    for (std::uint64_t i = 0; i < 4; ++i)
      CHECK_EQ(ring->write(fd, text.data() + 4 * round + i, 1, static_cast<std::int64_t>(4 * round + i), i), 0);
    std::set<std::uint64_t> tokens;
    for (int i = 0; i < 4; ++i) {
      IoRing::Completion completion{};
      CHECK_EQ(ring->wait(completion), 0);
      CHECK_EQ(completion.result, 1);
      tokens.insert(completion.token);
    }
    CHECK(tokens == (std::set<std::uint64_t>{0, 1, 2, 3}));
  }
  ::close(fd);
  CHECK(read_file(scratch / "a") == text);
}

TEST(an_error_is_the_result_of_its_write) {
  const auto ring = ring_or_note(1);
  if (ring == nullptr) return;
  IoRing::Completion completion{};
  CHECK_EQ(ring->write(-1, "x", 1, 0, 7), 0);
  CHECK_EQ(ring->wait(completion), 0);
  CHECK_EQ(completion.token, 7U);
  CHECK_EQ(completion.result, -EBADF);
}

TEST(a_wait_is_woken_again_and_again) {
  const auto ring = ring_or_note(1);
  if (ring == nullptr) return;
  for (int round = 0; round < 100; ++round) {
    std::thread waker([&] { ring->wake(); });
    IoRing::Completion completion{};
    CHECK_EQ(ring->wait(completion), 0);
    CHECK_EQ(completion.token, IoRing::kWoken);
    waker.join();
  }
}

TEST(a_container_that_refuses_is_named) {
  if (ring_or_note(1) == nullptr) return;
  const int code = in_a_child_without_io_uring([] {
    std::string why_not;
    const auto ring = open_io_ring(4, why_not);
    return ring != nullptr ? 1 : why_not == "io_uring refused: Operation not permitted (EPERM)" ? 0 : 2;
  });
  CHECK_EQ(code, 0);
}

TEST_MAIN()
