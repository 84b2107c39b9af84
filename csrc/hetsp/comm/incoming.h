// A message on its way in, at its destination, once it has met its receive. A chunk may come twice and in any order; it touches
// the user's memory only if its bit is not set, and the message has ended when every chunk has been stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "hetsp/comm/frame.h"
#include "hetsp/comm/matcher.h"

namespace hetsp::comm {

class Incoming {
 public:
  Operation operation = 0;
  int source = 0;
  std::uint64_t transfer = 0;
  std::int64_t tag = 0;
  std::span<std::byte> bytes;
  int last_rail = 0;  // that brought a chunk: for messages about its end
  std::vector<std::uint32_t> fresh;  // stored, and not yet told to the source
  Time told = 0;  // since when `fresh` waits
  std::size_t storing = 0;  // copies into the memory that have not ended
  bool ended = false;  // only the copies are waited for
  Outcome outcome;  // then

  Incoming(const Offered& offer, const Posted& receive, std::size_t chunk_bytes);

  // Where the chunk goes; null where it has been before. Throws nothing: a chunk that does not fit its message is null too.
  std::byte* begin(const Header& chunk);
  void stored(std::uint32_t chunk);
  [[nodiscard]] bool complete() const { return stored_ == state_.size(); }
  [[nodiscard]] std::size_t chunks() const { return state_.size(); }
  [[nodiscard]] std::size_t chunks_stored() const { return stored_; }

 private:
  enum class At : std::uint8_t { missing, storing, stored };
  std::size_t chunk_bytes_;
  std::vector<At> state_;  // [chunks]
  std::size_t stored_ = 0;
};

}  // namespace hetsp::comm
