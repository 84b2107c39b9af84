#include "hetsp/checkpoint/source_file.h"

#include <fcntl.h>

#include <algorithm>
#include <fstream>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/read_plan.h"
#include "hetsp/staging/ring.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

constexpr std::int64_t kBytes = 5 * kPage + 1234;

// Gives 100 bytes at a time, so that direct reads, which begin on pages, would never get past the first one.
class Crumbs : public HookedFileSystem {
 public:
  using HookedFileSystem::HookedFileSystem;
  std::int64_t pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) override {
    return std::min<std::int64_t>(HookedFileSystem::pread(fd, data, bytes, offset), 100);
  }
};

struct Fixture {
  Fixture() {
    for (std::int64_t i = 0; i < kBytes; ++i) text += static_cast<char>(i * 131 + i / 256);
    std::ofstream(path) << text;
  }
  bool right(SourceFile& file) const {
    const std::int64_t got = file.read(ring.slot(0), 8 * kPage, 0);
    const std::int64_t tail = file.read(ring.slot(1), 8 * kPage, 2 * kPage);
    return got == kBytes && std::string(ring.slot(0), kBytes) == text && tail == kBytes - 2 * kPage &&
           std::string(ring.slot(1), static_cast<std::size_t>(tail)) == text.substr(2 * kPage) &&
           file.read(ring.slot(0), kPage, 100 * kPage) == 0;
  }
  ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files{disk};
  hetsp::staging::Ring ring{16 * kPage, 8 * kPage};
  std::string path = scratch / "f", text;
};

}  // namespace

TEST(a_file_is_read_to_its_end) {
  Fixture f;
  SourceFile file(f.files, f.path);
  CHECK_EQ(file.bytes(), kBytes);
  CHECK(f.right(file));
  SourceFile buffered(f.files, f.path, false);
  CHECK(f.right(buffered));
  CHECK(buffered.refusal() == "not asked for");
}

TEST(direct_reads_may_be_refused_at_open_or_at_the_first_read) {
  for (const int code : {EINVAL, EOPNOTSUPP, EPERM, ENOSYS})
    for (const Operation operation : {Operation::open, Operation::pread}) {
      Fixture f;
      check::context() = hetsp::checkpoint::name(operation) + std::string(" ") + describe_errno(code);
      f.files.fail({.operation = operation, .code = code});
      SourceFile file(f.files, f.path);
      CHECK(f.right(file));
      CHECK(file.refusal().find(describe_errno(code)) != std::string::npos);
    }
  Fixture f;
  f.files.fail({.operation = Operation::open, .code = EINVAL, .times = FaultyFileSystem::kForever, .flags = O_DIRECT});
  SourceFile file(f.files, f.path);
  CHECK(f.right(file));
}

TEST(short_and_interrupted_reads_are_resumed) {
  for (const std::int64_t shortened : {std::int64_t{1}, std::int64_t{100}, kPage, kPage + 5, 3 * kPage})
    for (const bool direct : {true, false}) {
      Fixture f;
      check::context() = std::to_string(shortened);
      f.files.shorten({.operation = Operation::pread, .times = 3}, shortened);
      f.files.fail({.operation = Operation::pread, .nth = 2, .code = EINTR});
      SourceFile file(f.files, f.path, direct);
      CHECK(f.right(file));
    }
  Fixture f;
  Crumbs crumbs(f.disk);
  SourceFile file(crumbs, f.path);
  CHECK(f.right(file));
  CHECK(file.refusal().find("shorter") != std::string::npos);
}

TEST(what_cannot_be_read_is_said) {
  Fixture f;
  CHECK_THROWS(IoError, "/g: No such file", SourceFile(f.files, f.scratch / "g"));
  f.files.fail({.operation = Operation::pread, .code = EIO, .times = FaultyFileSystem::kForever});
  for (const bool direct : {true, false}) {
    SourceFile file(f.files, f.path, direct);
    CHECK_THROWS(IoError, "read ", file.read(f.ring.slot(0), kPage, 0));
  }
}

TEST(a_file_that_became_shorter_ends_there) {
  Fixture f;
  SourceFile file(f.files, f.path);
  std::filesystem::resize_file(f.path, 2 * kPage);
  CHECK_EQ(file.read(f.ring.slot(0), 8 * kPage, 0), 2 * kPage);
}

TEST_MAIN()
