#include "hetsp/checkpoint/io_error.h"

#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

namespace hetsp::checkpoint {

namespace {

// What the calls of FileSystem return according to their manual pages. (strerrorname_np needs glibc 2.32.)
constexpr std::array<std::pair<int, const char*>, 31> kNames{{
    {EPERM, "EPERM"},
    {ENOENT, "ENOENT"},
    {EINTR, "EINTR"},
    {EIO, "EIO"},
    {EBADF, "EBADF"},
    {EAGAIN, "EAGAIN"},
    {ENOMEM, "ENOMEM"},
    {EACCES, "EACCES"},
    {EFAULT, "EFAULT"},
    {EBUSY, "EBUSY"},
    {EEXIST, "EEXIST"},
    {EXDEV, "EXDEV"},
    {ENODEV, "ENODEV"},
    {ENOTDIR, "ENOTDIR"},
    {EISDIR, "EISDIR"},
    {EINVAL, "EINVAL"},
    {ENFILE, "ENFILE"},
    {EMFILE, "EMFILE"},
    {EFBIG, "EFBIG"},
    {ENOSPC, "ENOSPC"},
    {EROFS, "EROFS"},
    {EPIPE, "EPIPE"},
    {ENAMETOOLONG, "ENAMETOOLONG"},
    {ENOSYS, "ENOSYS"},
    {ENOTEMPTY, "ENOTEMPTY"},
    {ELOOP, "ELOOP"},
    {EOPNOTSUPP, "EOPNOTSUPP"},
    {ESTALE, "ESTALE"},
    {EDQUOT, "EDQUOT"},
    {ECANCELED, "ECANCELED"},
    {ETIMEDOUT, "ETIMEDOUT"},
}};

}  // namespace

std::string describe_errno(int code) {
  std::string text = std::generic_category().message(code);
  for (const auto& [known, name] : kNames)
    if (known == code) text += std::string(" (") + name + ")";
  return text;
}

IoError::IoError(const std::string& operation, const std::string& path, int code)
    : IoError(operation, path, code, describe_errno(code)) {}

IoError::IoError(const std::string& operation, const std::string& path, int code, const std::string& reason)
    : std::runtime_error(operation + " " + path + ": " + reason),
      operation_(operation),
      path_(path),
      reason_(reason),
      code_(code) {}

}  // namespace hetsp::checkpoint
