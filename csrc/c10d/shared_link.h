// This rank's end of a link in shared memory.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "c10d/buffer.h"
#include "c10d/shared_ring.h"
#include "hetsp/comm/transport.h"

namespace hetsp::routed {

// Chunks and other large frames go into slots, small ones into the ring. A frame is sent once it is there: its token is
// answered at once, as long as no more than `calm` slots are in use. Beyond that it is held back until the reader has caught
// up, so that the engine, which has few chunks unanswered on a link, stops before the slots run out: then nothing is copied
// twice. Where there is no room after all, frames wait here, in order.
class SharedLink {
 public:
  static constexpr std::size_t most_in_ring = 64 * 1024;  // bytes of a payload
  static constexpr std::uint32_t calm = 8, caught_up = 6;  // slots in use
  static constexpr std::uint32_t most_held = 4;            // by the reader, for what it sends on

  SharedLink(std::shared_ptr<RingReader> in, RingWriter out) : in_(std::move(in)), out_(std::move(out)) {}

  // `sent` gets the tokens that are answered.
  void send(const comm::Header& header, std::span<const std::byte> payload, comm::Token token, std::vector<comm::Token>& sent);
  void flush(std::vector<comm::Token>& sent);  // what waited and may go now
  void end(std::vector<comm::Token>& sent);    // gives up what waits; later frames are dropped

  bool ready() const;                     // there is something to take, to flush, or to be told
  std::string failure() const { return failure_; }  // "": none. Where the memory holds nonsense

  // The oldest frame; false: there is none. In the ring: `frame.payload` stays until next().
  bool take(RingReader::Frame& frame);
  void next() { in_->pop(); }
  bool empty() const { return in_->empty(); }

  // After next(): the slot as a buffer with room for a header; given back with the last reference, from any thread.
  std::shared_ptr<Buffer> slot(const RingReader::Frame& frame) const;
  bool scarce() const { return in_->held() > most_held; }

  std::string report() const;  // for people

 private:
  struct Waiting {
    comm::Header header;
    std::vector<std::byte> payload;
    comm::Token token = 0;
  };
  static bool in_slot(const comm::Header& header) { return header.kind == comm::Kind::chunk || header.length > most_in_ring; }
  bool put(const comm::Header& header, std::span<const std::byte> payload, comm::Token token, std::vector<comm::Token>& sent);

  std::shared_ptr<RingReader> in_;
  RingWriter out_;
  std::deque<Waiting> waiting_;
  std::vector<comm::Token> held_back_;
  std::string failure_;
  bool ended_ = false;
};

}  // namespace hetsp::routed
