// The ways of writing, worst first. Each better one is tried, and given up with a reason where the system refuses it.
#pragma once

namespace hetsp::checkpoint {

enum class IoMode {
  buffered,  // through the page cache
  direct,    // O_DIRECT, one pwrite per writer thread at a time
  io_uring   // O_DIRECT, several writes in flight from one thread
};

[[nodiscard]] constexpr const char* name(IoMode mode) {
  return mode == IoMode::buffered ? "buffered" : mode == IoMode::direct ? "direct" : "io_uring";
}

}  // namespace hetsp::checkpoint
