#include "hetsp/checkpoint/source_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "hetsp/checkpoint/io_error.h"
#include "hetsp/checkpoint/read_plan.h"

namespace hetsp::checkpoint {

namespace {

// What file systems answer that cannot read past the page cache, some at open and some at the first read.
bool refuses_direct(int code) { return code == EINVAL || code == EOPNOTSUPP || code == EPERM || code == ENOSYS; }

}  // namespace

SourceFile::SourceFile(FileSystem& files, const std::string& path, bool direct) : files_(files), path_(path) {
  if (direct) {
    try {
      direct_.emplace(files, path, O_RDONLY | O_DIRECT);
    } catch (const IoError& error) {
      if (!refuses_direct(error.code())) throw;
      fall_back(error.what());
    }
  } else {
    fall_back("not asked for");
  }
  bytes_ = current().file->status().bytes;
}

SourceFile::Current SourceFile::current() {
  const std::lock_guard lock(mutex_);
  return buffered_ ? Current{&*buffered_, false} : Current{&*direct_, true};
}

std::string SourceFile::refusal() {
  const std::lock_guard lock(mutex_);
  return refusal_;
}

void SourceFile::fall_back(const std::string& why) {
  const std::lock_guard lock(mutex_);
  if (buffered_) return;
  buffered_.emplace(files_, path_, O_RDONLY);
  refusal_ = why;
}

std::int64_t SourceFile::read(char* memory, std::int64_t count, std::int64_t offset) {
  std::int64_t done = 0;
  while (done < count && offset + done < bytes_) {
    const auto [file, direct] = current();
    // Direct transfers begin on pages, so what came of the last page with a short one is read again.
    const std::int64_t from = direct ? done / kPage * kPage : done;
    const std::int64_t got = files_.pread(file->descriptor(), memory + from, count - from, offset + from);
    if (got == -EINTR) continue;
    if (got < 0) {
      const int code = static_cast<int>(-got);
      if (!direct || !refuses_direct(code)) throw IoError("read", path_, code);
      fall_back(IoError("read", path_, code).what());
    } else if (from + got > done) {
      done = from + got;
    } else if (direct && got > 0) {
      fall_back("direct reads come back shorter than a page");
    } else {
      break;  // the file became shorter
    }
  }
  return std::min(done, std::max<std::int64_t>(0, bytes_ - offset));
}

}  // namespace hetsp::checkpoint
