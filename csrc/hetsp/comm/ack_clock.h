// How long acknowledgements take on a link, and how many bytes a second they confirm.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/comm/transport.h"

namespace hetsp::comm {

// Ack times are smoothed as TCP's round trips are (RFC 6298): mean and mean deviation with gains 1/8 and 1/4. The rate is
// measured as BBR measures it (Cardwell et al., ACM Queue 14(5), 2016): what was delivered between a frame's sending and its
// ack, over that time; a frame that did not fill the window shows only that the link is at least so fast.
class AckClock {
 public:
  struct Options {
    double rate = 0;     // bytes/s to begin with; 0: not known
    Time floor = 0;      // patience is never less,
    Time first = 0;      // ... and this before anything was measured
  };

  // What has to be remembered with a frame.
  struct Mark {
    Time sent = 0;
    Time delivered_time = 0;      // of the ack before
    std::uint64_t delivered = 0;  // bytes acknowledged by then
    bool full = false;            // the window had no room left
  };

  explicit AckClock(const Options& options) : options_(options), floor_(options.floor), rate_(options.rate) {}

  Mark sent(Time now, bool idle, bool full);  // idle: nothing else was in flight
  void acknowledged(const Mark& mark, std::size_t bytes, Time now);
  // An ack is here that left when the other end's clock said `stamp`; 0: it does not tell.
  void came_back(std::uint64_t stamp, Time now);

  // Without progress for patience(), a second at most, the other end is suspect, after verdict() it is taken for dead: twice
  // the patience, but 180 ms where that is less, so that a death is noticed within 200 ms wherever acks take less than that.
  Time patience() const;
  Time verdict() const;
  void misjudged();  // it was not dead: the floor doubles, up to 90 ms, and falls back by half every ten seconds
  void restart();    // another connection: the shortest ack time is forgotten

  Time smoothed() const { return smoothed_; }
  Time shortest() const;  // of the last 5 to 10 seconds; 0: none was seen
  double rate() const { return rate_; }

  // How long acks wait behind the other direction's data, at most 50 ms: by how much their way back is longer than the shortest
  // of the last 5 to 10 seconds. The two clocks need not agree: their difference is in both (LEDBAT, RFC 6817, section 3.4.2).
  Time back() const { return back_; }

 private:
  Options options_;
  Time floor_;
  Time floor_since_ = 0;
  Time last_ = 0;  // when acknowledged() was last called
  Time smoothed_ = 0, deviation_ = 0;
  bool measured_ = false;
  Time shortest_[2] = {0, 0};  // of this span of five seconds and of the one before; 0: none
  Time span_since_ = 0;
  struct Way {
    bool known = false;
    std::uint64_t took = 0;  // modulo 2^64, with the difference of the clocks in it
  };
  Way shortest_way_[2];  // of the same spans
  Time back_ = 0;
  Time delivered_time_ = 0;
  std::uint64_t delivered_ = 0;
  double rate_;
};

}  // namespace hetsp::comm
