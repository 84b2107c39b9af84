// The fakes themselves: a fault injector that misses its call would let every test above it pass.
#include <fcntl.h>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/recording_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

TEST(the_nth_call_fails_and_only_that) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::mkdir, .nth = 2, .code = EROFS});
  fs.fail({.nth = 5, .code = EIO, .times = FaultyFileSystem::kForever});
  CHECK_EQ(fs.mkdir(scratch / "a", 0777), 0);
  CHECK_EQ(fs.mkdir(scratch / "b", 0777), -EROFS);
  CHECK_EQ(fs.mkdir(scratch / "b", 0777), 0);
  CHECK_EQ(fs.rmdir(scratch / "b"), 0);
  CHECK_EQ(fs.mkdir(scratch / "c", 0777), -EIO);
  CHECK_EQ(fs.rmdir(scratch / "a"), -EIO);
  fs.heal();
  CHECK_EQ(fs.rmdir(scratch / "a"), 0);
  CHECK_EQ(fs.calls(), 7);
  CHECK_EQ(fs.calls(Operation::mkdir), 4);
  CHECK_EQ(fs.injected(), 3);
}

TEST(a_path_or_a_flag_narrows_a_fault) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::open, .code = EINVAL, .flags = O_APPEND});
  fs.fail({.operation = Operation::pwrite, .code = ENOSPC, .part = "second"});
  const int first = fs.open(scratch / "first", O_RDWR | O_CREAT, 0666);
  CHECK_EQ(fs.open(scratch / "first", O_RDWR | O_APPEND, 0666), -EINVAL);
  const int second = fs.open(scratch / "second", O_RDWR | O_CREAT, 0666);
  CHECK_EQ(fs.pwrite(first, "ab", 2, 0), 2);
  CHECK_EQ(fs.pwrite(second, "ab", 2, 0), -ENOSPC);
  CHECK_EQ(fs.close(first), 0);
  CHECK_EQ(fs.close(second), 0);
}

TEST(a_recording_holds_what_reached_the_file) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem faulty(disk);
  faulty.shorten({.operation = Operation::pwrite}, 3);
  RecordingFileSystem fs(faulty);
  const int fd = fs.open(scratch / "a", O_RDWR | O_CREAT, 0666);
  CHECK_EQ(fs.pwrite(fd, "hello", 5, 4), 3);
  CHECK_EQ(fs.fsync(fd), 0);
  CHECK_EQ(fs.close(fd), 0);
  CHECK_EQ(fs.rename(scratch / "a", scratch / "b"), 0);
  const auto records = fs.records();
  CHECK_EQ(records.size(), 5U);
  CHECK(records[1].call.operation == Operation::pwrite);
  CHECK_EQ(records[1].bytes, "hel");
  CHECK_EQ(records[1].call.offset, 4);
  CHECK_EQ(records[2].call.path, scratch / "a");
  CHECK_EQ(records[4].call.to, scratch / "b");
}

TEST_MAIN()
