#include "hetsp/checkpoint/io_probe.h"

#include <fcntl.h>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/checkpoint/io_error.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

TEST(it_names_the_mode_and_leaves_nothing) {
  const ScratchDirectory scratch;
  PosixFileSystem fs;
  for (const IoMode best : {IoMode::buffered, IoMode::direct, IoMode::io_uring}) {
    const IoProbe probe = probe_io(fs, scratch.path(), best);
    CHECK(probe.mode <= best);
    CHECK_EQ(probe.mode == best, probe.reasons.empty());
    for (const auto& reason : probe.reasons) std::printf("note: not %s here: %s\n", name(best), reason.c_str());
  }
  CHECK(std::filesystem::is_empty(scratch.path()));
}

TEST(it_names_every_refusal) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::io_ring, .code = EPERM});
  fs.fail({.operation = Operation::open, .code = EINVAL, .flags = O_DIRECT});
  const IoProbe probe = probe_io(fs, scratch.path(), IoMode::io_uring);
  CHECK(probe.mode == IoMode::buffered);
  CHECK_EQ(probe.reasons.size(), 2U);
  CHECK(probe.reasons[0].find("io_uring refused") == 0);
  CHECK_EQ(probe.reasons[1], "O_DIRECT refused by open: Invalid argument (EINVAL)");
}

TEST(a_directory_that_cannot_be_written_to_is_an_error) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  CHECK_THROWS(IoError, "(ENOENT)", (void)probe_io(disk, scratch / "none", IoMode::io_uring));
  FaultyFileSystem fs(disk);
  fs.fail({.operation = Operation::pwrite, .code = EIO, .times = FaultyFileSystem::kForever});
  CHECK_THROWS(IoError, "(EIO)", (void)probe_io(fs, scratch.path(), IoMode::io_uring));
  CHECK(std::filesystem::is_empty(scratch.path()));
}

TEST_MAIN()
