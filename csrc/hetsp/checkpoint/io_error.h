// A file operation that the system refused: what was tried, on which path, and the errno.
//
// It fails the checkpoint that it belongs to and nothing else. Reaches Python as hetsp_ext.errors.CheckpointWriteError, an
// OSError with `errno` and `filename`.
#pragma once

#include <stdexcept>
#include <string>

namespace hetsp::checkpoint {

class IoError : public std::runtime_error {
 public:
  IoError(const std::string& operation, const std::string& path, int code);  // code: an errno, > 0
  // The same for what has a name of its own: `reason`, while `code` is what comes nearest to it.
  IoError(const std::string& operation, const std::string& path, int code, const std::string& reason);

  [[nodiscard]] const std::string& operation() const { return operation_; }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] int code() const { return code_; }
  [[nodiscard]] const std::string& reason() const { return reason_; }

 private:
  std::string operation_, path_, reason_;
  int code_;
};

// "No space left on device (ENOSPC)"; the name is left out where it is not one that files give.
[[nodiscard]] std::string describe_errno(int code);

}  // namespace hetsp::checkpoint
