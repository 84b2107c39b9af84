#include "hetsp/checkpoint/output_file.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::checkpoint {

bool is_refusal(std::int64_t result) {
  return result == -EINVAL || result == -EOPNOTSUPP || result == -EPERM || result == -ENOSYS;
}

OutputFile::OutputFile(FileSystem& fs, std::string path, std::int64_t bytes, IoMode best)
    : fs_(fs), path_(std::move(path)), bytes_(bytes), direct_(best != IoMode::buffered) {}

void OutputFile::make() {
  constexpr int kNew = O_WRONLY | O_CREAT | O_EXCL;
  if (direct_) {
    try {
      file_ = std::make_shared<File>(fs_, path_, kNew | O_DIRECT);
    } catch (const IoError& error) {
      if (!is_refusal(-error.code())) throw;
      direct_ = false;
      direct_reason_ = "O_DIRECT refused by open: " + describe_errno(error.code());
      // Linux has made the file before it refuses, so O_EXCL would now find our own. (Another's gives EEXIST above.)
      made_ = true;
      file_ = std::make_shared<File>(fs_, path_, O_WRONLY | O_CREAT | O_TRUNC);
    }
  } else {
    file_ = std::make_shared<File>(fs_, path_, kNew);
  }
  made_ = true;
  static_cast<void>(file_->allocate(bytes_));  // no reservation where there is none: then a full disk is found at a write
}

OutputFile::Opened OutputFile::opened() {
  const std::lock_guard lock(mutex_);
  if (failure_) throw IoError(*failure_);
  if (file_ == nullptr) {
    try {
      make();
    } catch (const IoError& error) {
      failure_ = error;
      throw;
    }
  }
  return {file_, direct_};
}

OutputFile::Descriptor OutputFile::open() {
  const Opened now = opened();
  return {now.file->descriptor(), now.direct};
}

void OutputFile::fall_back(const std::shared_ptr<File>& refused, const std::string& when, std::int64_t result) {
  const std::lock_guard lock(mutex_);
  if (file_ != refused) return;  // another thread was first
  auto buffered = std::make_shared<File>(fs_, path_, O_WRONLY);
  direct_ = false;
  direct_reason_ = "O_DIRECT refused by " + when + ": " +
                   (result < 0 ? describe_errno(static_cast<int>(-result)) : concat("only ", result, " bytes were written"));
  refused_ = std::exchange(file_, std::move(buffered));
}

void OutputFile::write(const char* data, std::int64_t bytes, std::int64_t offset, std::int64_t done) {
  while (done < bytes) {
    const auto [file, direct] = opened();
    if (direct) done -= done % kAlignment;  // a short write may end anywhere; writing the same bytes twice does no harm
    const std::int64_t result = fs_.pwrite(file->descriptor(), data + done, bytes - done, offset + done);
    if (result == -EINTR) continue;
    if (direct && (is_refusal(result) || (0 <= result && result < kAlignment))) {
      fall_back(file, "write", result);
    } else if (result <= 0) {
      throw IoError("write", path_, result == 0 ? EIO : static_cast<int>(-result));
    } else {
      // The page cache would collect gigabytes before it begins by itself, and fsync would then wait for all of them.
      if (!direct) fs_.start_writeback(file->descriptor(), result, offset + done);
      done += result;
    }
  }
}

void OutputFile::finish() {
  const auto file = opened().file;
  file->truncate(bytes_);
  file->sync();
  if (refused_ != nullptr) {  // one inode, but an error of the disk is reported to each descriptor
    refused_->sync();
    refused_->close();
  }
  file->close();
}

void OutputFile::discard() noexcept {
  const std::lock_guard lock(mutex_);
  file_.reset();
  refused_.reset();
  while (made_ && fs_.unlink(path_) == -EINTR) {
  }
  if (!failure_) failure_.emplace("write", path_, ECANCELED);
}

void OutputFile::note_ring(bool ringed, const std::string& why_not) {
  const std::lock_guard lock(mutex_);
  ringed_ = ringed;
  ring_reason_ = why_not;
}

IoMode OutputFile::mode() const {
  const std::lock_guard lock(mutex_);
  if (!direct_) return IoMode::buffered;
  return ringed_ ? IoMode::io_uring : IoMode::direct;
}

std::vector<std::string> OutputFile::reasons() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> reasons;
  for (const std::string& reason : {ring_reason_, direct_reason_})
    if (!reason.empty()) reasons.push_back(reason);
  return reasons;
}

}  // namespace hetsp::checkpoint
