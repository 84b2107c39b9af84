#include "hetsp/checkpoint/file_system.h"

#include <fcntl.h>

#include <cerrno>

#include "checkpoint/scratch_directory.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

TEST(a_file_is_written_read_cut_and_removed) {
  const ScratchDirectory scratch;
  PosixFileSystem fs;
  const int fd = fs.open(scratch / "a", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
  CHECK(fd >= 0);
  CHECK_EQ(fs.pwrite(fd, "hello", 5, 3), 5);
  CHECK_EQ(fs.fsync(fd), 0);
  FileStatus status;
  CHECK_EQ(fs.fstat(fd, status), 0);
  CHECK_EQ(status.bytes, 8);
  CHECK(!status.directory);
  char text[16] = {};
  CHECK_EQ(fs.pread(fd, text, 16, 3), 5);
  CHECK_EQ(std::string(text), "hello");
  CHECK_EQ(fs.pread(fd, text, 16, 8), 0);
  const int reserved = fs.fallocate(fd, 10000);
  CHECK(reserved == 0 || reserved == -EOPNOTSUPP);
  CHECK_EQ(fs.ftruncate(fd, 4), 0);
  CHECK_EQ(fs.stat(scratch / "a", status), 0);
  CHECK_EQ(status.bytes, 4);
  CHECK_EQ(fs.close(fd), 0);
  CHECK_EQ(fs.close(fd), -EBADF);
  CHECK_EQ(fs.open(scratch / "a", O_RDWR | O_CREAT | O_EXCL, 0640), -EEXIST);
  CHECK_EQ(fs.unlink(scratch / "a"), 0);
  CHECK_EQ(fs.unlink(scratch / "a"), -ENOENT);
}

TEST(directories_are_made_listed_renamed_and_exchanged) {
  const ScratchDirectory scratch;
  PosixFileSystem fs;
  CHECK_EQ(fs.mkdir(scratch / "b", 0777), 0);
  CHECK_EQ(fs.mkdir(scratch / "b", 0777), -EEXIST);
  CHECK_EQ(fs.mkdir(scratch / "a", 0777), 0);
  CHECK_EQ(fs.mkdir(scratch / "a/inside", 0777), 0);
  std::vector<std::string> names{"stale"};
  CHECK_EQ(fs.list(scratch.path(), names), 0);
  CHECK(names == (std::vector<std::string>{"a", "b"}));
  CHECK_EQ(fs.list(scratch / "none", names), -ENOENT);
  FileStatus status;
  CHECK_EQ(fs.stat(scratch / "a", status), 0);
  CHECK(status.directory);
  CHECK_EQ(fs.rename(scratch / "b", scratch / "a"), -ENOTEMPTY);  // names of checkpoints are never reused for this reason
  const int exchanged = fs.exchange(scratch / "a", scratch / "b");
  if (exchanged == 0) {
    CHECK_EQ(fs.list(scratch / "b", names), 0);
    CHECK(names == std::vector<std::string>{"inside"});
  } else {
    std::printf("note: this file system cannot exchange: %d\n", exchanged);
  }
  CHECK_EQ(fs.rename(scratch / "none", scratch / "c"), -ENOENT);
  CHECK_EQ(fs.rmdir(scratch / "none"), -ENOENT);
}

TEST(one_holder_of_a_lock) {
  const ScratchDirectory scratch;
  PosixFileSystem fs;
  const int a = fs.open(scratch / "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const int b = fs.open(scratch / "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  CHECK_EQ(fs.lock(a, false), 0);
  CHECK_EQ(fs.lock(b, false), -EWOULDBLOCK);
  CHECK_EQ(fs.unlock(a), 0);
  CHECK_EQ(fs.lock(b, true), 0);
  fs.close(b);
  CHECK_EQ(fs.lock(a, false), 0);
  fs.close(a);
}

TEST_MAIN()
