// What was read is not what was written.
#pragma once

#include <stdexcept>

namespace hetsp::checkpoint {

// Reaches Python as hetsp_ext.errors.CheckpointCorrupt. The message names the file and what is wrong with it.
class Corrupt : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace hetsp::checkpoint
