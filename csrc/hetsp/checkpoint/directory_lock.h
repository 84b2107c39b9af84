// The right to publish into, prune and clean a directory of checkpoints: an exclusive flock on one file in it.
//
// The kernel drops it when the process dies, however it dies, so no stale lock is ever left to be judged. A flock belongs to
// the open file and is shared with children that were forked; a data-loader worker that outlives its killed trainer for some
// seconds would hold the directory. Therefore fork hands the child an open /dev/null in the lock's place.
#pragma once

#include <optional>
#include <string>

#include "hetsp/checkpoint/file.h"

namespace hetsp::checkpoint {

class DirectoryLock {
 public:
  DirectoryLock(FileSystem& files, std::string path);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

  // True once this object holds the lock; false where another one does and wait is false. Some network file systems know no
  // locks: there it is true, and `refusal` says why it protects nothing. Throws IoError for any other failure.
  bool acquire(bool wait);
  void release();
  [[nodiscard]] bool held() const;                              // by this object, in this process
  [[nodiscard]] const std::string& refusal() const { return refusal_; }

 private:
  FileSystem& files_;
  std::string path_, refusal_;
  std::optional<File> file_;
  int owner_ = -1;  // process that acquired it
};

}  // namespace hetsp::checkpoint
