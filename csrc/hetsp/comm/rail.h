// One end of a rail or of a control link: what is in flight on it, how much more may be, and whether it still lives. Pure.
//
// The wire below delivers in order or stalls (TCP hides loss as delay), so nothing is sent twice on one connection. Every
// counted frame has a hop number; the other end acknowledges what arrived, and from the acknowledgements come
//   - the window: bytes in flight stay near rate x acknowledgement time, so that little stands before a control frame, and
//     little is lost to a rail that dies;
//   - the verdict: the oldest frame unanswered for longer than smoothed acknowledgement time + 4 deviations, at least 50 ms
//     (RFC 6298 with another floor), and a probe unanswered as well, is a rail that is down. Its frames are handed back, for
//     another way; they may have arrived, so what they carry must bear arriving twice;
//   - the way back: a rail that is down is connected afresh as the next generation; a control link, which nothing replaces, is
//     up again as soon as the peer answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "hetsp/comm/frame.h"
#include "hetsp/comm/statistics.h"
#include "hetsp/comm/transport.h"

namespace hetsp::comm {

struct RailOptions {
  std::size_t chunk_bytes = 256 * 1024;  // largest payload: the window is never below two of them
  bool resettable = true;                // false for a control link: generation stays 0, it is silent rather than down
};

class Rail {
 public:
  Rail(const RailOptions& options, bool up, Time now);  // control links begin up, rails down until connected() says so
  ~Rail();
  Rail(Rail&&) noexcept;
  Rail& operator=(Rail&&) noexcept;

  [[nodiscard]] bool up() const;
  [[nodiscard]] std::uint16_t generation() const;
  [[nodiscard]] std::size_t room() const;       // payload bytes that may be put now; 0 while down. Small frames need not ask
  [[nodiscard]] std::size_t in_flight() const;  // payload bytes put and not acknowledged
  [[nodiscard]] double ack_seconds() const;     // smoothed; 0 while unknown
  [[nodiscard]] double rate() const;            // bytes/s, estimated; 0 while unknown

  // The frame goes on the wire now: answers its hop number. `frame` is the caller's name for it, not 0. Only while up.
  std::uint32_t put(std::uint64_t frame, std::size_t payload_bytes, Time now);

  // A frame came over this link, of any kind. True: go on with it; false: it belonged to the rail alone (ack, probe), or
  // is of an older generation (counted as foreign by the caller: see `stale`).
  enum class Arrived { deliver, done, stale };
  Arrived arrive(const Header& header, std::span<const std::byte> payload, Time now);

  void connected(std::uint16_t generation, Time now);  // both ends have a fresh connection
  void broken(Time now);                               // the wire says so itself, or the other end told
  void poll(Time now);
  [[nodiscard]] Time deadline() const;  // max() when nothing is due

  // What came of the calls above; each drains what it answers.
  std::vector<std::uint64_t> take_acknowledged();
  std::vector<std::uint64_t> take_returned();  // the rail went down under them
  bool take_reset();                           // Transport::reset is due
  bool take_went_down();                       // since the last call; tell the other end by another way
  bool take_came_up();
  // A frame of the rail itself (ack, probe) that is due; put it on the wire before anything else, without put(). The caller
  // fills in job, source, destination and rail.
  bool take_own(Header& header, std::vector<std::byte>& payload);

  [[nodiscard]] RailStatistics statistics() const;  // node and rail are the caller's to fill in

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hetsp::comm
