// How a checkpoint in a directory would be written: found out by writing a page there, as a checkpoint is, and removing it.
#pragma once

#include <string>
#include <vector>

#include "hetsp/checkpoint/file_system.h"
#include "hetsp/checkpoint/io_mode.h"

namespace hetsp::checkpoint {

struct IoProbe {
  IoMode mode = IoMode::buffered;
  std::vector<std::string> reasons;  // why not a better one
};

// Throws IoError where the directory cannot be written to at all.
[[nodiscard]] IoProbe probe_io(FileSystem& fs, const std::string& directory, IoMode best);

}  // namespace hetsp::checkpoint
