#include "hetsp/checkpoint/write_queue.h"

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <memory>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
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
  for (const int writers : {1, 3}) {
    const ScratchDirectory scratch;
    PosixFileSystem fs;
    constexpr std::int64_t kCount = 100;
    const auto data = pages(kCount);
    for (std::int64_t i = 0; i < kCount * kPage; ++i) data.get()[i] = static_cast<char>(i / kPage);
    OutputFile file(fs, scratch / "a", kCount * kPage, IoMode::direct);
    std::vector<std::atomic<int>> done(kCount);
    {
      WriteQueue queue(fs, {IoMode::direct, writers});
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
}

TEST_MAIN()
