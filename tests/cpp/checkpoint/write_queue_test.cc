#include "hetsp/checkpoint/write_queue.h"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <future>
#include <memory>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "checkpoint/seccomp_refusal.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kPage = OutputFile::kAlignment;

std::unique_ptr<char, decltype(&std::free)> pages(std::int64_t count) {
  return {static_cast<char*>(std::aligned_alloc(kPage, static_cast<std::size_t>(count * kPage))), std::free};
}

}  // namespace

TEST(every_write_is_done_once_before_the_queue_ends) {
  for (const int writers : {1, 3})
    for (const IoMode best : {IoMode::direct, IoMode::io_uring}) {
      const ScratchDirectory scratch;
      PosixFileSystem fs;
      constexpr std::int64_t kCount = 100;
      const auto data = pages(kCount);
      for (std::int64_t i = 0; i < kCount * kPage; ++i) data.get()[i] = static_cast<char>(i / kPage);
      OutputFile file(fs, scratch / "a", kCount * kPage, best);
      std::vector<std::atomic<int>> done(kCount);
      {
        WriteQueue queue(fs, {best, writers, 5});
        for (std::int64_t i = 0; i < kCount; ++i)
          queue.write({&file, data.get() + i * kPage, kPage, i * kPage, [&done, i](const std::optional<IoError>& failure) {
                         CHECK(!failure);
                         ++done[static_cast<std::size_t>(i)];
                       }});
      }
      for (const auto& count : done) CHECK_EQ(count.load(), 1);
      file.finish();
      CHECK(read_file(scratch / "a") == std::string(data.get(), static_cast<std::size_t>(kCount * kPage)));
    }
}

TEST(a_failure_reaches_its_write_alone) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::pwrite, .nth = 2, .code = ENOSPC});
  const auto data = pages(1);
  OutputFile file(fs, scratch / "a", 3 * kPage, IoMode::direct);
  std::vector<int> codes;
  {
    WriteQueue queue(fs, {IoMode::direct, 1});
    for (std::int64_t i = 0; i < 3; ++i)
      queue.write({&file, data.get(), kPage, i * kPage,
                   [&](const std::optional<IoError>& failure) { codes.push_back(failure ? failure->code() : 0); }});
  }
  CHECK(codes == (std::vector<int>{0, ENOSPC, 0}));
}

TEST(a_ring_that_is_refused_leaves_pwrite) {
  const auto write_three = [](FaultyFileSystem& fs, const std::string& path, OutputFile& file, WriteQueue::Options options) {
    const auto data = pages(3);
    for (std::int64_t i = 0; i < 3 * kPage; ++i) data.get()[i] = static_cast<char>('a' + i / kPage);
    std::vector<std::optional<IoError>> failures;
    {
      WriteQueue queue(fs, options);
      for (std::int64_t i = 0; i < 3; ++i)
        queue.write({&file, data.get() + i * kPage, kPage, i * kPage,
                     [&](const std::optional<IoError>& failure) { failures.push_back(failure); }});
    }
    CHECK_EQ(failures.size(), 3U);
    for (const auto& failure : failures) CHECK(!failure);
    file.finish();
    CHECK(read_file(path) == std::string(data.get(), 3 * kPage));
  };
  const struct {
    const char* what;
    std::function<void(FaultyFileSystem&)> refuse;
    const char* reason;  // empty: io_uring is used
  } cases[] = {
      {"by setup", [](auto& fs) { fs.fail({.operation = Operation::io_ring, .code = EPERM}); }, "io_uring refused"},
      {"by a write", [](auto& fs) { fs.fail({.operation = Operation::pwrite, .code = EPERM}); },
       "io_uring refused by write: Operation not permitted (EPERM)"},
      {"short", [](auto& fs) { fs.shorten({.operation = Operation::pwrite}, 512); }, ""},
      {"interrupted", [](auto& fs) { fs.fail({.operation = Operation::pwrite, .code = EINTR}); }, ""},
      {"busy", [](auto& fs) { fs.fail({.operation = Operation::pwrite, .code = EAGAIN}); }, ""},
  };
  for (const auto& c : cases)
    for (const int depth : {1, 4}) {
      check::context() = c.what + std::string(", depth ") + std::to_string(depth);
      const ScratchDirectory scratch;
      PosixFileSystem disk;
      FaultyFileSystem fs(disk);
      std::string why_not;
      if (disk.io_ring(1, why_not) == nullptr) {
        std::printf("note: not run here: %s\n", why_not.c_str());
        return;
      }
      c.refuse(fs);
      OutputFile file(fs, scratch / "a", 3 * kPage, IoMode::io_uring);
      write_three(fs, scratch / "a", file, {IoMode::io_uring, 1, depth});
      if (!file.reasons().empty() && file.mode() == IoMode::buffered) continue;  // this disk refuses O_DIRECT
      CHECK(file.mode() == (*c.reason == 0 ? IoMode::io_uring : IoMode::direct));
      CHECK_EQ(file.reasons().size(), *c.reason == 0 ? 0U : 1U);
      for (const auto& reason : file.reasons()) CHECK(reason.find(c.reason) == 0);
    }
}

TEST(direct_io_refused_through_the_ring_leaves_a_buffered_file) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  std::string why_not;
  const bool ringed = disk.io_ring(1, why_not) != nullptr;
  fs.fail({.operation = Operation::pwrite, .code = EINVAL, .times = ringed ? 2 : 1});  // of the ring, then of pwrite
  const auto data = pages(2);
  OutputFile file(fs, scratch / "a", 2 * kPage, IoMode::io_uring);
  {
    WriteQueue queue(fs, {IoMode::io_uring, 1, 1});
    for (std::int64_t i = 0; i < 2; ++i)
      queue.write({&file, data.get() + i * kPage, kPage, i * kPage, [](const auto& failure) { CHECK(!failure); }});
  }
  file.finish();
  CHECK(file.mode() == IoMode::buffered);
  CHECK(read_file(scratch / "a") == std::string(data.get(), 2 * kPage));
}

TEST(a_ring_that_breaks_fails_what_is_under_way_and_nothing_after) {
  class BrokenRing final : public IoRing {
   public:
    int write(int /*fd*/, const void* /*data*/, std::int64_t /*bytes*/, std::int64_t /*offset*/,
              std::uint64_t /*token*/) override {
      return 0;
    }
    int wait(Completion& /*completion*/) override { return -EBADF; }
    void wake() override {}
  };
  class BrokenRings final : public HookedFileSystem {
   public:
    using HookedFileSystem::HookedFileSystem;
    std::unique_ptr<IoRing> io_ring(unsigned /*entries*/, std::string& /*why_not*/) override {
      return std::make_unique<BrokenRing>();
    }
  };
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  BrokenRings fs(disk);
  const auto data = pages(1);
  OutputFile lost(fs, scratch / "lost", kPage, IoMode::io_uring), next(fs, scratch / "next", kPage, IoMode::io_uring);
  if (!lost.open().direct) return;  // this disk takes no direct writes, so no ring
  std::promise<int> code;
  {
    WriteQueue queue(fs, {IoMode::io_uring, 1, 4});
    queue.write({&lost, data.get(), kPage, 0, [&](const auto& failure) { code.set_value(failure ? failure->code() : 0); }});
    CHECK_EQ(code.get_future().get(), EIO);
    queue.write({&next, data.get(), kPage, 0, [](const auto& failure) { CHECK(!failure); }});
  }
  next.finish();
  CHECK(next.mode() == IoMode::direct);
  CHECK(next.reasons() == std::vector<std::string>{"io_uring refused by write: Bad file descriptor (EBADF)"});
  CHECK_EQ(std::filesystem::file_size(scratch / "next"), 4096U);
}

TEST(a_container_without_io_uring_writes_all_the_same) {
  const ScratchDirectory scratch;
  const std::string path = scratch / "a";
  const int code = in_a_child_without_io_uring([&] {
    PosixFileSystem fs;
    const auto data = pages(1);
    OutputFile file(fs, path, kPage, IoMode::io_uring);
    int failures = 0;
    {
      WriteQueue queue(fs, {IoMode::io_uring, 1, 8});
      queue.write({&file, data.get(), kPage, 0, [&](const auto& failure) { failures += failure.has_value(); }});
    }
    file.finish();
    const auto reasons = file.reasons();
    return failures != 0 ? 1 : reasons.empty() ? 2 : reasons[0].find("io_uring ") != 0 ? 3 : 0;
  });
  CHECK_EQ(code, 0);
  CHECK_EQ(std::filesystem::file_size(path), 4096U);
}

TEST(jobs_may_add_jobs_until_the_end) {
  for (const int writers : {1, 4}) {
    PosixFileSystem fs;
    std::atomic<int> ran{0};
    {
      WriteQueue queue(fs, {IoMode::direct, writers});
      for (int i = 0; i < 50; ++i)
        queue.later([&] {
          ++ran;
          queue.later([&] {
            ++ran;
            queue.later([&] { ++ran; });
          });
        });
    }
    CHECK_EQ(ran.load(), 150);
  }
}

TEST(signals_are_not_delivered_to_its_threads) {
  PosixFileSystem fs;
  sigset_t mask;
  sigemptyset(&mask);
  {
    WriteQueue queue(fs, {IoMode::direct, 1});
    queue.later([&] { pthread_sigmask(SIG_SETMASK, nullptr, &mask); });
  }
  CHECK_EQ(sigismember(&mask, SIGINT), 1);
  CHECK_EQ(sigismember(&mask, SIGALRM), 1);
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  CHECK_EQ(sigismember(&mask, SIGINT), 0);  // the maker's own are as before
}

TEST(bad_options_are_named) {
  PosixFileSystem fs;
  CHECK_THROWS(InvalidArgument, "writers is 0, must be at least 1", WriteQueue(fs, {IoMode::direct, 0}));
  CHECK_THROWS(InvalidArgument, "depth is 0, must be at least 1", WriteQueue(fs, {IoMode::direct, 1, 0}));
}

TEST_MAIN()
