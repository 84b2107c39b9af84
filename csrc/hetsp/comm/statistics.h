// What a rank's engine has counted since it began.
#pragma once

#include <cstdint>
#include <vector>

namespace hetsp::comm {

struct RailStatistics {
  int node = 0;  // at the other end
  int rail = 0;
  bool up = true;
  std::uint16_t generation = 0;
  std::uint64_t bytes_sent = 0;      // payload, first attempts and repeated ones
  std::uint64_t bytes_received = 0;
  std::uint64_t frames_resent = 0;
  std::uint64_t times_down = 0;
  double silence_noticed = 0;  // seconds from the oldest unanswered frame to the last time it was called down
  double ack_seconds = 0;      // smoothed
  double rate = 0;             // bytes/s, estimated from acknowledgements
};

struct Statistics {
  std::vector<RailStatistics> rails;  // that this rank owns
  std::uint64_t messages_sent = 0, messages_received = 0;
  std::uint64_t eager = 0, direct = 0, spread = 0, local = 0;  // routes chosen for messages sent
  std::uint64_t chunks_sent = 0, chunks_resent = 0, chunks_relayed = 0;
  std::uint64_t duplicates_dropped = 0, foreign_dropped = 0;  // arrived again; of another epoch
};

}  // namespace hetsp::comm
