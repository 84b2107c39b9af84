#include "hetsp/checkpoint/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

namespace hetsp::checkpoint {

namespace {

template <class Result>
Result checked(Result result) {
  return result < 0 ? static_cast<Result>(-errno) : result;
}

FileStatus status_of(const struct stat& s) {
  return {s.st_size, S_ISDIR(s.st_mode), static_cast<std::uint64_t>(s.st_dev), static_cast<std::uint64_t>(s.st_ino)};
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

}  // namespace

int PosixFileSystem::open(const std::string& path, int flags, unsigned mode) {
  return checked(::open(path.c_str(), flags, mode));
}
int PosixFileSystem::close(int fd) { return checked(::close(fd)); }

std::int64_t PosixFileSystem::pwrite(int fd, const void* data, std::int64_t bytes, std::int64_t offset) {
  return checked(::pwrite(fd, data, static_cast<std::size_t>(bytes), offset));
}
std::int64_t PosixFileSystem::pread(int fd, void* data, std::int64_t bytes, std::int64_t offset) {
  return checked(::pread(fd, data, static_cast<std::size_t>(bytes), offset));
}

int PosixFileSystem::fallocate(int fd, std::int64_t bytes) { return checked(::fallocate(fd, 0, 0, bytes)); }
int PosixFileSystem::ftruncate(int fd, std::int64_t bytes) { return checked(::ftruncate(fd, bytes)); }
int PosixFileSystem::fsync(int fd) { return checked(::fsync(fd)); }
void PosixFileSystem::start_writeback(int fd, std::int64_t bytes, std::int64_t offset) {
  static_cast<void>(::sync_file_range(fd, offset, bytes, SYNC_FILE_RANGE_WRITE));
}

int PosixFileSystem::fstat(int fd, FileStatus& status) {
  struct stat s{};
  const int result = checked(::fstat(fd, &s));
  if (result == 0) status = status_of(s);
  return result;
}
int PosixFileSystem::stat(const std::string& path, FileStatus& status) {
  struct stat s{};
  const int result = checked(::lstat(path.c_str(), &s));
  if (result == 0) status = status_of(s);
  return result;
}

int PosixFileSystem::mkdir(const std::string& path, unsigned mode) { return checked(::mkdir(path.c_str(), mode)); }
int PosixFileSystem::rmdir(const std::string& path) { return checked(::rmdir(path.c_str())); }
int PosixFileSystem::unlink(const std::string& path) { return checked(::unlink(path.c_str())); }
int PosixFileSystem::rename(const std::string& from, const std::string& to) {
  return checked(::rename(from.c_str(), to.c_str()));
}
int PosixFileSystem::exchange(const std::string& from, const std::string& to) {
  return checked(::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE));
}

int PosixFileSystem::list(const std::string& path, std::vector<std::string>& names) {
  const std::unique_ptr<DIR, CloseDirectory> directory(::opendir(path.c_str()));
  if (directory == nullptr) return -errno;
  std::vector<std::string> found;
  errno = 0;  // readdir's only sign of a failure
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") found.push_back(name);
  }
  if (errno != 0) return -errno;
  std::sort(found.begin(), found.end());
  names = std::move(found);
  return 0;
}

int PosixFileSystem::lock(int fd, bool wait) { return checked(::flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB))); }
int PosixFileSystem::unlock(int fd) { return checked(::flock(fd, LOCK_UN)); }

std::unique_ptr<IoRing> PosixFileSystem::io_ring(unsigned entries, std::string& why_not) {
  return open_io_ring(entries, why_not);
}

}  // namespace hetsp::checkpoint
