// What is copied at a time: header and spans, in the order of the file, cut where the memory changes between host and devices,
// where a slot of the ring ends, and on a device at the bytes of a chunk.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/checkpoint/span.h"

namespace hetsp::checkpoint {

struct Leg {
  struct Piece {
    std::int64_t span, begin, bytes;  // span -1: the header; begin: in the span
  };
  std::int64_t offset = 0, bytes = 0;  // in the file
  int device = kHost;
  std::vector<Piece> pieces;  // none is empty
};

class Legs {
 public:
  // spans: borrowed. chunk_bytes > 0.
  Legs(std::int64_t header_bytes, const std::vector<Span>& spans, std::int64_t chunk_bytes);

  [[nodiscard]] bool done() const { return part_ > static_cast<std::int64_t>(spans_.size()); }
  [[nodiscard]] std::int64_t offset() const { return offset_; }  // of the next leg
  [[nodiscard]] int device() const { return device_of_part(); }  // of the next leg; unless done()
  [[nodiscard]] Leg next(std::int64_t room);                     // at most `room` bytes, > 0; unless done()

 private:
  void settle();
  [[nodiscard]] std::int64_t part_bytes() const;
  [[nodiscard]] int device_of_part() const;

  const std::int64_t header_bytes_;
  const std::vector<Span>& spans_;
  const std::int64_t chunk_bytes_;
  std::int64_t part_ = 0, in_part_ = 0;  // part 0 is the header, part s + 1 span s
  std::int64_t offset_ = 0;
};

}  // namespace hetsp::checkpoint
