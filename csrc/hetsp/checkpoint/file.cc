#include "hetsp/checkpoint/file.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "hetsp/checkpoint/io_error.h"

namespace hetsp::checkpoint {

namespace {

template <class Call>
auto uninterrupted(const Call& call) {
  auto result = call();
  while (result == -EINTR) result = call();
  return result;
}

template <class Result>
Result checked(Result result, const char* operation, const std::string& path) {
  if (result < 0) throw IoError(operation, path, static_cast<int>(-result));
  return result;
}

}  // namespace

File::File(FileSystem& fs, std::string path, int flags, unsigned mode)
    : fs_(fs),
      path_(std::move(path)),
      fd_(checked(uninterrupted([&] { return fs.open(path_, flags | O_CLOEXEC, mode); }), "open", path_)) {}

File::~File() {
  if (fd_ >= 0) fs_.close(fd_);
}

File::File(File&& other) noexcept : fs_(other.fs_), path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

void File::write(const void* data, std::int64_t bytes, std::int64_t offset) {
  const auto* from = static_cast<const char*>(data);
  for (std::int64_t done = 0; done < bytes;) {
    const std::int64_t wrote = uninterrupted([&] { return fs_.pwrite(fd_, from + done, bytes - done, offset + done); });
    if (wrote == 0) throw IoError("write", path_, EIO);  // no progress and no reason: never loop on it
    done += checked(wrote, "write", path_);
  }
}

std::int64_t File::read(void* data, std::int64_t bytes, std::int64_t offset) {
  auto* to = static_cast<char*>(data);
  std::int64_t done = 0;
  while (done < bytes) {
    const std::int64_t got = uninterrupted([&] { return fs_.pread(fd_, to + done, bytes - done, offset + done); });
    if (got == 0) break;
    done += checked(got, "read", path_);
  }
  return done;
}

bool File::allocate(std::int64_t bytes) {
  const int result = uninterrupted([&] { return fs_.fallocate(fd_, bytes); });
  if (result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL || result == -EPERM) return false;
  checked(result, "fallocate", path_);
  return true;
}

void File::truncate(std::int64_t bytes) {
  checked(uninterrupted([&] { return fs_.ftruncate(fd_, bytes); }), "ftruncate", path_);
}

void File::sync() {
  checked(uninterrupted([&] { return fs_.fsync(fd_); }), "fsync", path_);
}

FileStatus File::status() {
  FileStatus status;
  checked(uninterrupted([&] { return fs_.fstat(fd_, status); }), "fstat", path_);
  return status;
}

bool File::lock(bool wait) {
  const int result = uninterrupted([&] { return fs_.lock(fd_, wait); });
  if (result == -EWOULDBLOCK) return false;
  checked(result, "flock", path_);
  return true;
}

void File::close() {
  const int result = fs_.close(std::exchange(fd_, -1));
  if (result != -EINTR) checked(result, "close", path_);  // Linux frees the descriptor before it looks at signals
}

void sync_directory(FileSystem& fs, const std::string& path) { File(fs, path, O_RDONLY | O_DIRECTORY).sync(); }

std::string parent_of(const std::string& path) {
  const auto slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace hetsp::checkpoint
