// One end of a rail or of a control link: what is in flight on it, how much more may be, and whether it still lives. Pure.
//
// The wire below delivers in order or stalls (TCP hides loss as delay), so nothing is sent twice on one connection. Every
// counted frame has a hop number, from 1 in every generation; the other end's rail acknowledges what has arrived: everything up
// to a number (Header::value) and what came above a gap (Header::tag, bit i = number + 1 + i), and when the ack left by that
// end's clock (Header::transfer). Chunks and probes are acknowledged at once, small frames together, up to 2 ms later: an ack
// costs both ends as much as a small frame does. From the acknowledgements come
//   - the window: rate x (shortest ack time + 5 ms) and two chunks, so that little stands before a control frame and little is
//     lost with a rail that dies; and rate x half the time that acks wait behind the other direction's chunks: without it the
//     direction with the smaller window starves, by the ratio of the two;
//   - the verdict (ack_clock.h): no progress for longer than is usual makes a rail suspect, it gets no more chunks; some time
//     later it is down. Its frames are handed back, for another way; they may have arrived, so what they carry must bear
//     arriving twice. Silence counts from the last progress, so that a slow rail is not a dead one, and time in which poll()
//     came late is our own silence, not the other end's;
//   - the way back: an ack after all ends a stall (TCP waits 200 ms before it repeats a lost tail). Without one, after another
//     quarter of a second, a rail is connected afresh as the next generation, and is up when its first probe is answered; a
//     control link, which nothing replaces, goes on asking.
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
  bool resettable = true;  // false for a control link: generation stays 0, it is silent rather than down
  double rate = 0;  // bytes/s that the NIC promises; 0: not known
  Time queue = 5'000'000;  // how much more than the wire holds may be in flight
  Time floor = 50'000'000;  // silence below this is never suspect,
  Time first = 100'000'000;  // ... below this not before anything was measured
  Time reset_after = 250'000'000;  // a silence that lasts so long after the verdict is no stall
  Time probe_every = 1'000'000'000;  // an idle link is asked so often
  std::size_t window_limit = 64u << 20u;  // bytes
};

class Rail {
 public:
  Rail(const RailOptions& options, bool up, Time now);  // control links begin up, rails down until connected() says so
  ~Rail();
  Rail(Rail&&) noexcept;
  Rail& operator=(Rail&&) noexcept;

  [[nodiscard]] bool up() const;
  [[nodiscard]] std::uint16_t generation() const;
  [[nodiscard]] bool suspect() const;  // up, but silent: room() is 0
  [[nodiscard]] std::size_t room()
      const;  // payload bytes that may be put now: 0 or a chunk at least. Small frames need not ask
  [[nodiscard]] std::size_t in_flight() const;  // payload bytes put and not acknowledged
  [[nodiscard]] double ack_seconds() const;  // smoothed; 0 while unknown
  [[nodiscard]] double rate() const;  // bytes/s, estimated; 0 while unknown

  // The frame goes on the wire now: answers its hop number. `frame` is the caller's name for it, not 0. Only while up.
  std::uint32_t put(std::uint64_t frame, std::size_t payload_bytes, Time now);

  // A frame came over this link, of any kind. True: go on with it; false: it belonged to the rail alone (ack, probe), or
  // is of an older generation (counted as foreign by the caller: see `stale`).
  enum class Arrived { deliver, done, stale };
  Arrived arrive(const Header& header, std::span<const std::byte> payload, Time now);

  void connected(std::uint16_t generation, Time now);  // both ends have a fresh connection
  void broken(Time now);  // the wire says so itself, or the other end told
  void poll(Time now);
  [[nodiscard]] Time deadline() const;  // max() when nothing is due

  // What came of the calls above; each drains what it answers.
  std::vector<std::uint64_t> take_acknowledged();
  std::vector<std::uint64_t> take_returned();  // the rail went down under them
  bool take_reset();  // Transport::reset is due; tell the other end by another way, it may not notice
  bool take_went_down();  // since the last call
  bool take_came_up();
  [[nodiscard]] bool owes_ack() const;
  // A frame of the rail itself (ack, probe) that is due, also while it is not up; put it on the wire before anything else,
  // without put(). The caller fills in job, source, destination and rail.
  bool take_own(Header& header, std::vector<std::byte>& payload);

  [[nodiscard]] RailStatistics statistics() const;  // node and rail are the caller's to fill in
  [[nodiscard]] std::string report(Time now) const;  // for people

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hetsp::comm
