#include "hetsp/checkpoint/file.h"

#include <fcntl.h>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/checkpoint/io_error.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

constexpr int kNew = O_RDWR | O_CREAT | O_EXCL;

std::string pattern(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 131 + i / 256);
  return text;
}

}  // namespace

TEST(short_and_interrupted_transfers_are_resumed_where_they_stopped) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::open, .nth = 1, .code = EINTR, .times = 2});
  fs.shorten({.operation = Operation::pwrite, .nth = 1}, 1);
  fs.fail({.operation = Operation::pwrite, .nth = 2, .code = EINTR, .times = 3});
  fs.shorten({.operation = Operation::pwrite, .nth = 5, .times = 4}, 100);
  fs.shorten({.operation = Operation::pread, .nth = 1, .times = 5}, 7);
  fs.fail({.operation = Operation::pread, .nth = 3, .code = EINTR});
  fs.fail({.operation = Operation::fsync, .nth = 1, .code = EINTR});
  const std::string text = pattern(5000);
  File file(fs, scratch / "a", kNew);
  file.write(text.data(), 5000, 11);
  file.sync();
  CHECK_EQ(read_file(scratch / "a"), std::string(11, '\0') + text);
  std::string back(6000, '\0');
  CHECK_EQ(file.read(back.data(), 6000, 11), 5000);
  CHECK(back.substr(0, 5000) == text);
  file.close();
  CHECK_EQ(fs.open_descriptors(), 0);
}

TEST(every_failure_names_operation_and_path) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  File file(fs, scratch / "a", kNew);
  const auto after = [&](Operation operation, int code) {
    fs.heal();
    fs.fail({.operation = operation, .code = code});
  };
  after(Operation::pwrite, ENOSPC);
  CHECK_THROWS(IoError, "/a: No space left on device (ENOSPC)", (file.write("x", 1, 0), 0));
  after(Operation::fsync, EIO);
  CHECK_THROWS(IoError, "fsync /", (file.sync(), 0));
  after(Operation::ftruncate, EIO);
  CHECK_THROWS(IoError, "ftruncate /", (file.truncate(0), 0));
  after(Operation::fallocate, ENOSPC);
  CHECK_THROWS(IoError, "fallocate /", (file.allocate(10)));
  after(Operation::fallocate, EOPNOTSUPP);
  CHECK(!file.allocate(10));
  after(Operation::pread, EIO);
  char byte = 0;
  CHECK_THROWS(IoError, "read /", file.read(&byte, 1, 0));
  after(Operation::close, EDQUOT);
  CHECK_THROWS(IoError, "close /", (file.close(), 0));
  CHECK_EQ(fs.open_descriptors(), 0);
  fs.heal();
  CHECK_THROWS(IoError, "(EEXIST)", File(fs, scratch / "a", kNew));
  CHECK_THROWS(IoError, "(ENOENT)", (sync_directory(fs, scratch / "none"), 0));
  sync_directory(fs, scratch.path());
}

TEST(a_write_without_progress_is_an_error_not_a_loop) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.shorten({.operation = Operation::pwrite, .times = FaultyFileSystem::kForever}, 0);
  File file(fs, scratch / "a", kNew);
  CHECK_THROWS(IoError, "(EIO)", (file.write("x", 1, 0), 0));
}

TEST(descriptors_do_not_outlive_an_exec_nor_the_object) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  {
    File file(fs, scratch / "a", kNew);
    CHECK((::fcntl(file.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
    const File moved(std::move(file));
    CHECK_EQ(fs.open_descriptors(), 1);
  }
  CHECK_EQ(fs.open_descriptors(), 0);
}

TEST(parents) {
  CHECK_EQ(parent_of("a/b/c"), "a/b");
  CHECK_EQ(parent_of("/b"), "/");
  CHECK_EQ(parent_of("b"), ".");
}

TEST_MAIN()
