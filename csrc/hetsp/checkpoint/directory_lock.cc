#include "hetsp/checkpoint/directory_lock.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

#include "hetsp/checkpoint/io_error.h"

namespace hetsp::checkpoint {

namespace {

// Descriptors of the locks that this process holds, -1 where free. Read by the child of a fork, where only what is safe in a
// signal handler may run: hence atomics in a fixed array, no mutex. A lock that finds no place is inherited, no worse.
std::array<std::atomic<int>, 64>& held_descriptors() {
  static auto& held = *[] {
    static std::array<std::atomic<int>, 64> all;
    for (auto& descriptor : all) descriptor = -1;
    return &all;
  }();
  return held;
}

void forget_locks_in_child() {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  for (auto& held : held_descriptors()) {
    const int descriptor = held.exchange(-1);
    if (descriptor >= 0 && null >= 0) ::dup3(null, descriptor, O_CLOEXEC);  // the number stays taken: File will close it
  }
  if (null >= 0) ::close(null);
}

void remember(int descriptor) {
  static std::once_flag once;
  std::call_once(once, [] {
    held_descriptors();
    ::pthread_atfork(nullptr, nullptr, forget_locks_in_child);
  });
  for (auto& held : held_descriptors())
    if (int free = -1; held.compare_exchange_strong(free, descriptor)) return;
}

void forget(int descriptor) {
  for (auto& held : held_descriptors())
    if (int mine = descriptor; held.compare_exchange_strong(mine, -1)) return;
}

}  // namespace

DirectoryLock::DirectoryLock(FileSystem& files, std::string path) : files_(files), path_(std::move(path)) {}

DirectoryLock::~DirectoryLock() { release(); }

bool DirectoryLock::held() const { return file_ && owner_ == ::getpid(); }

bool DirectoryLock::acquire(bool wait) {
  if (held()) return true;
  release();  // what a fork left behind
  for (;;) {
    File file(files_, path_, O_RDWR | O_CREAT);
    try {
      if (!file.lock(wait)) return false;
      refusal_.clear();
    } catch (const IoError& error) {
      if (error.code() != ENOSYS && error.code() != EOPNOTSUPP && error.code() != ENOLCK) throw;
      refusal_ = error.what();
    }
    FileStatus now;
    if (files_.stat(path_, now) != 0 || now.inode != file.status().inode) continue;  // removed since: a lock on nothing
    file_.emplace(std::move(file));
    owner_ = ::getpid();
    remember(file_->descriptor());
    return true;
  }
}

void DirectoryLock::release() {
  if (!file_) return;
  if (held()) forget(file_->descriptor());
  file_.reset();  // closing the only descriptor drops the lock
}

}  // namespace hetsp::checkpoint
