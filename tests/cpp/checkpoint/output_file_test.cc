#include "hetsp/checkpoint/output_file.h"

#include <fcntl.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kPage = OutputFile::kAlignment;

struct Pages {  // aligned, of a known pattern
  explicit Pages(std::int64_t count)
      : bytes(count * kPage), data(static_cast<char*>(std::aligned_alloc(kPage, bytes)), std::free) {
    for (std::int64_t i = 0; i < bytes; ++i) data.get()[i] = static_cast<char>(i * 31 + i / 4096 * 7);
  }
  [[nodiscard]] std::string text(std::int64_t length) const { return {data.get(), static_cast<std::size_t>(length)}; }
  std::int64_t bytes;
  std::unique_ptr<char, decltype(&std::free)> data;
};

struct Fixture {
  ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs{disk};
  Pages pages{8};
  std::string path = scratch / "a";
};

}  // namespace

TEST(the_file_has_its_length_and_bytes) {
  for (const IoMode best : {IoMode::buffered, IoMode::direct}) {
    Fixture f;
    const std::int64_t length = 7 * kPage + 17;
    OutputFile file(f.fs, f.path, length, best);
    CHECK_EQ(f.fs.calls(), 0);  // not before the first write
    file.write(f.pages.data.get() + 4 * kPage, 4 * kPage, 4 * kPage);
    file.write(f.pages.data.get(), 4 * kPage, 0);
    file.finish();
    CHECK(read_file(f.path) == f.pages.text(length));
    CHECK_EQ(f.fs.calls(Operation::fsync), 1);
    CHECK_EQ(f.fs.open_descriptors(), 0);
    if (file.mode() != best) std::printf("note: %s here: %s\n", name(file.mode()), file.reasons().front().c_str());
  }
}

TEST(direct_io_refused_at_open_leaves_a_buffered_file) {
  for (const int code : {EINVAL, EOPNOTSUPP, EPERM}) {
    Fixture f;
    f.fs.fail({.operation = Operation::open, .code = code, .times = FaultyFileSystem::kForever, .flags = O_DIRECT});
    OutputFile file(f.fs, f.path, 5 * kPage + 1, IoMode::direct);
    file.write(f.pages.data.get(), 6 * kPage, 0);
    file.finish();
    CHECK(file.mode() == IoMode::buffered);
    CHECK(file.reasons() == std::vector<std::string>{"O_DIRECT refused by open: " + describe_errno(code)});
    CHECK(read_file(f.path) == f.pages.text(5 * kPage + 1));
  }
}

TEST(direct_io_refused_at_any_write_leaves_a_buffered_file) {
  for (const std::int64_t nth : {1, 2, 3}) {
    Fixture f;
    f.fs.fail({.operation = Operation::pwrite, .nth = nth, .code = EINVAL});
    OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
    if (!file.open().direct) return;  // this disk refuses by itself
    for (std::int64_t i = 0; i < 4; ++i) file.write(f.pages.data.get() + 2 * i * kPage, 2 * kPage, 2 * i * kPage);
    file.finish();
    CHECK(file.mode() == IoMode::buffered);
    CHECK(file.reasons() == std::vector<std::string>{"O_DIRECT refused by write: Invalid argument (EINVAL)"});
    CHECK(read_file(f.path) == f.pages.text(8 * kPage));
    CHECK_EQ(f.fs.calls(Operation::fsync), 2);  // both descriptors: an error is reported to each once
    CHECK_EQ(f.fs.open_descriptors(), 0);
  }
}

TEST(short_and_interrupted_writes_are_resumed) {
  for (const IoMode best : {IoMode::buffered, IoMode::direct})
    for (const std::int64_t bytes : {std::int64_t{1}, kPage - 1, kPage, kPage + 1, 3 * kPage + 5}) {
      Fixture f;
      check::context() = std::string(name(best)) + " cut after " + std::to_string(bytes);
      f.fs.shorten({.operation = Operation::pwrite, .nth = 2}, bytes);
      f.fs.fail({.operation = Operation::pwrite, .nth = 1, .code = EINTR});
      OutputFile file(f.fs, f.path, 8 * kPage, best);
      file.write(f.pages.data.get(), 8 * kPage, 0);
      file.finish();
      CHECK(read_file(f.path) == f.pages.text(8 * kPage));
    }
}

TEST(a_first_attempt_from_elsewhere_is_completed) {
  for (const std::int64_t done : {std::int64_t{0}, std::int64_t{1000}, kPage, 2 * kPage + 1, 8 * kPage}) {
    Fixture f;
    OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
    CHECK_EQ(f.fs.pwrite(file.open().fd, f.pages.data.get(), 8 * kPage, 0), 8 * kPage);
    file.write(f.pages.data.get(), 8 * kPage, 0, done);
    file.finish();
    CHECK(read_file(f.path) == f.pages.text(8 * kPage));
  }
}

TEST(errors_are_those_of_the_disk) {
  const struct {
    Operation operation;
    int code;
    const char* part;
  } cases[] = {{Operation::open, EROFS, "open "},         {Operation::fallocate, ENOSPC, "fallocate "},
               {Operation::pwrite, EIO, "write "},        {Operation::pwrite, ENOSPC, "write "},
               {Operation::ftruncate, EIO, "ftruncate "}, {Operation::fsync, EIO, "fsync "},
               {Operation::close, EDQUOT, "close "}};
  for (const auto& c : cases) {
    Fixture f;
    f.fs.fail({.operation = c.operation, .code = c.code});
    OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
    CHECK_THROWS(IoError, c.part, (file.write(f.pages.data.get(), 8 * kPage, 0), file.finish(), 0));
    file.discard();
    CHECK(!std::filesystem::exists(f.path));
    CHECK_EQ(f.fs.open_descriptors(), 0);
    CHECK_THROWS(IoError, "", (file.write(f.pages.data.get(), kPage, 0), 0));
  }
}

TEST(a_disk_that_writes_nothing_is_an_error) {
  Fixture f;
  f.fs.shorten({.operation = Operation::pwrite, .times = FaultyFileSystem::kForever}, 0);
  OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
  CHECK_THROWS(IoError, "(EIO)", (file.write(f.pages.data.get(), 8 * kPage, 0), 0));
  CHECK(file.mode() == IoMode::buffered);
}

TEST(a_file_of_another_is_neither_overwritten_nor_removed) {
  Fixture f;
  {
    std::ofstream(f.path) << "theirs";
  }
  OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
  CHECK_THROWS(IoError, "(EEXIST)", (file.write(f.pages.data.get(), kPage, 0), 0));
  CHECK_THROWS(IoError, "(EEXIST)", (file.write(f.pages.data.get(), kPage, kPage), 0));
  file.discard();
  CHECK_EQ(read_file(f.path), "theirs");
}

TEST(a_disk_that_cannot_reserve_goes_on) {
  Fixture f;
  f.fs.fail({.operation = Operation::fallocate, .code = EOPNOTSUPP});
  OutputFile file(f.fs, f.path, 3 * kPage, IoMode::direct);
  file.write(f.pages.data.get(), 3 * kPage, 0);
  file.finish();
  CHECK(read_file(f.path) == f.pages.text(3 * kPage));
}

TEST(many_writers_meet_one_refusal) {
  for (int round = 0; round < 20; ++round) {
    Fixture f;
    f.fs.fail({.operation = Operation::pwrite, .nth = 1 + round % 8, .code = EINVAL, .times = 3});
    OutputFile file(f.fs, f.path, 8 * kPage, IoMode::direct);
    std::vector<std::thread> writers;
    std::atomic<int> failed{0};
    for (std::int64_t i = 0; i < 8; ++i)
      writers.emplace_back([&, i] {
        try {
          file.write(f.pages.data.get() + i * kPage, kPage, i * kPage);
        } catch (const IoError&) {  // a buffered write that is refused has no way left
          ++failed;
        }
      });
    for (auto& writer : writers) writer.join();
    if (failed == 0) {
      file.finish();
      CHECK(read_file(f.path) == f.pages.text(8 * kPage));
    }
  }
}

TEST_MAIN()
