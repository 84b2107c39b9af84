// A file that is read past the page cache in large aligned requests by several threads, and through it where the file system
// refuses that: at open or, as some do, at the first read.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "hetsp/checkpoint/file.h"

namespace hetsp::checkpoint {

class SourceFile {
 public:
  SourceFile(FileSystem& files, const std::string& path, bool direct = true);  // throws IoError where it does not open

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }  // length of the file when it was opened
  // Fills memory with bytes [offset, offset + count) of the file and returns how many there are: less than count only at the
  // end. All three are multiples of a page. Throws IoError.
  [[nodiscard]] std::int64_t read(char* memory, std::int64_t count, std::int64_t offset);
  [[nodiscard]] std::string refusal();  // why it is read through the page cache; empty where it is not

 private:
  struct Current {
    File* file;
    bool direct;
  };
  [[nodiscard]] Current current();
  void fall_back(const std::string& why);

  FileSystem& files_;
  std::string path_, refusal_;
  std::optional<File> direct_, buffered_;  // the direct one stays open: another thread may be reading
  std::int64_t bytes_ = 0;
  std::mutex mutex_;
};

}  // namespace hetsp::checkpoint
