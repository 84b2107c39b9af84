// A run of bytes of a file with the checksum of what was written there.
#pragma once

#include <cstdint>
#include <string>

namespace hetsp::checkpoint {

struct Extent {
  std::int64_t begin = 0, end = 0;  // file offsets in bytes, half open
  std::string hash;                 // lower-case hex
};

}  // namespace hetsp::checkpoint
