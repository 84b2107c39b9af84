#include "hetsp/checkpoint/directory_lock.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "checkpoint/faulty_file_system.h"
#include "checkpoint/scratch_directory.h"
#include "hetsp/checkpoint/io_error.h"
#include "support/check.h"

using namespace hetsp::checkpoint;

namespace {

// Runs `body` in a forked child and returns whether it said true.
template <class Body>
bool in_child(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST(one_holds_it_until_it_lets_go) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  DirectoryLock a(files, scratch / ".lock");
  DirectoryLock b(files, scratch / ".lock");
  CHECK(!a.held());
  CHECK(a.acquire(false));
  CHECK(a.acquire(false));
  CHECK(a.held() && !b.held());
  CHECK(!b.acquire(false));
  CHECK(in_child([&] { return !DirectoryLock(files, scratch / ".lock").acquire(false); }));
  a.release();
  CHECK(!a.held());
  CHECK(b.acquire(false));
  CHECK(b.refusal().empty());
}

TEST(a_dead_holder_leaves_it_though_its_own_children_live) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  int ready[2];
  CHECK(::pipe(ready) == 0);
  const pid_t holder = ::fork();
  if (holder == 0) {  // takes the lock, forks a worker that goes on for long, and hangs
    DirectoryLock lock(files, scratch / ".lock");
    const bool got = lock.acquire(false);
    if (::fork() == 0) {
      const pid_t self = ::getpid();  // said by the worker itself: by then fork has done its part
      (void)!::write(ready[1], &self, got ? sizeof self : 1);
    }
    for (;;) ::pause();
  }
  pid_t worker = -1;
  CHECK(::read(ready[0], &worker, sizeof worker) == sizeof worker);
  DirectoryLock mine(files, scratch / ".lock");
  CHECK(!mine.acquire(false));
  ::kill(holder, SIGKILL);
  ::waitpid(holder, nullptr, 0);
  CHECK(::kill(worker, 0) == 0);
  CHECK(mine.acquire(false));
  ::kill(worker, SIGKILL);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(a_child_neither_holds_nor_drops_its_parents_lock) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  DirectoryLock lock(files, scratch / ".lock");
  CHECK(lock.acquire(false));
  CHECK(in_child([&] {
    const bool thinks = lock.held();
    const bool got = lock.acquire(false);
    lock.release();
    return !thinks && !got;
  }));
  CHECK(lock.held());
  DirectoryLock other(files, scratch / ".lock");
  CHECK(!other.acquire(false));
}

TEST(a_lock_file_that_is_removed_is_made_anew) {
  const ScratchDirectory scratch;
  PosixFileSystem files;
  DirectoryLock a(files, scratch / ".lock");
  CHECK(a.acquire(false));
  a.release();
  std::filesystem::remove(scratch / ".lock");
  DirectoryLock b(files, scratch / ".lock");
  CHECK(a.acquire(false));
  CHECK(!b.acquire(false));
}

TEST(where_there_are_no_locks_it_says_so) {
  const ScratchDirectory scratch;
  PosixFileSystem disk;
  FaultyFileSystem files(disk);
  DirectoryLock lock(files, scratch / ".lock");
  files.fail({.operation = Operation::lock, .code = EOPNOTSUPP});
  CHECK(lock.acquire(false));
  CHECK(lock.refusal().find("flock") != std::string::npos);
  lock.release();
  files.heal();
  files.fail({.operation = Operation::lock, .code = EIO});
  CHECK_THROWS(IoError, "flock", lock.acquire(false));
  CHECK(!lock.held());
  CHECK_EQ(files.open_descriptors(), 0);
}

TEST_MAIN()
