// How much memory this process can still take without pushing anything out or being killed.
#pragma once

#include <cstdint>
#include <string>

namespace hetsp::checkpoint {

// Bytes: MemAvailable of the machine or, where less, what the process's control group (version 2) and those above it still
// allow, page cache counted as free. 0 where the system does not say. `root` stands before /proc and /sys; tests set it.
[[nodiscard]] std::int64_t available_memory(const std::string& root = "");

}  // namespace hetsp::checkpoint
