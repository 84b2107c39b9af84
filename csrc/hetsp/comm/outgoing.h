// A message on its way out, at its source: which of its chunks wait, which are under way and where, which have arrived.
//
// The destination says what it has stored (Kind::received); a chunk that nobody confirmed is under way. A rail that goes down
// gives its chunks back to wait again. At the tail of a message, when no chunk waits, one that is late on a slow rail may be
// sent a second time over a rail that has room: the first copy to arrive counts. The message has ended when its destination
// says so (Kind::fin), never by this rank's own count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "hetsp/comm/transport.h"

namespace hetsp::comm {

constexpr int local_rail = -1;  // over the node's own connections

class Outgoing {
 public:
  Operation operation = 0;
  int destination = 0;
  std::uint64_t transfer = 0;
  std::int64_t tag = 0;
  std::span<const std::byte> bytes;
  std::size_t size = 0;  // of all of them
  std::uint16_t type = 0;
  std::size_t eager_bytes = 0;  // that it counts against the limit of its destination
  bool accepted = false;
  bool spread = false;  // may use every rail, not only its own
  bool queued = false;  // in a queue of the router

  // `chunked`: bytes that travel in chunks, 0 for an eager message; `window`: the most chunks under way.
  Outgoing(std::size_t chunked, std::size_t chunk_bytes, std::size_t window);

  [[nodiscard]] std::uint32_t chunks() const { return static_cast<std::uint32_t>(state_.size()); }
  [[nodiscard]] std::size_t offset(std::uint32_t chunk) const { return chunk * chunk_bytes_; }
  [[nodiscard]] std::span<const std::byte> piece(std::uint32_t chunk) const;

  [[nodiscard]] std::size_t waiting() const;  // chunks that could go now
  [[nodiscard]] std::size_t left() const { return state_.size() - next_ + returned_.size(); }  // chunks not under way
  [[nodiscard]] bool tail() const;            // none waits, some are under way
  [[nodiscard]] const auto& flights() const { return flights_; }

  struct Flight {
    int rail = local_rail;      // of the last copy
    Time sent = 0;              // the last copy
    std::uint16_t attempts = 0;  // copies so far
  };
  // The next chunk that waits, now under way on `rail`.
  std::optional<std::uint32_t> take(int rail, Time now);
  void again(std::uint32_t chunk, int rail, Time now);  // another copy of one under way
  [[nodiscard]] std::uint16_t attempt(std::uint32_t chunk) const;

  // The chunk has arrived: the flight that it ended, if it was under way.
  std::optional<Flight> arrived(std::uint32_t chunk);
  bool give_back(std::uint32_t chunk, int rail);  // its copy on `rail` did not arrive; true: it waits again
  std::size_t give_back_all(int rail);            // all whose last copy is on that rail

 private:
  enum class At : std::uint8_t { waiting, under_way, arrived };
  std::size_t chunk_bytes_, window_;
  std::vector<At> state_;  // [chunks]
  std::uint32_t next_ = 0;
  std::deque<std::uint32_t> returned_;
  std::unordered_map<std::uint32_t, Flight> flights_;
  std::unordered_map<std::uint32_t, std::uint16_t> attempts_;  // of chunks that were given back
};

}  // namespace hetsp::comm
