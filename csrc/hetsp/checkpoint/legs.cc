#include "hetsp/checkpoint/legs.h"

#include <algorithm>

namespace hetsp::checkpoint {

Legs::Legs(std::int64_t header_bytes, const std::vector<Span>& spans, std::int64_t chunk_bytes)
    : header_bytes_(header_bytes), spans_(spans), chunk_bytes_(chunk_bytes) {
  settle();
}

// Moves on from what is done and from spans without bytes.
void Legs::settle() {
  while (!done() && in_part_ == part_bytes()) ++part_, in_part_ = 0;
}

std::int64_t Legs::part_bytes() const { return part_ == 0 ? header_bytes_ : spans_[static_cast<std::size_t>(part_ - 1)].bytes; }
int Legs::device_of_part() const { return part_ == 0 ? kHost : spans_[static_cast<std::size_t>(part_ - 1)].device; }

Leg Legs::next(std::int64_t room) {
  Leg leg{offset_, 0, device_of_part(), {}};
  if (leg.device != kHost) room = std::min(room, chunk_bytes_);
  while (!done() && leg.bytes < room && device_of_part() == leg.device) {
    const std::int64_t bytes = std::min(room - leg.bytes, part_bytes() - in_part_);
    leg.pieces.push_back({part_ - 1, in_part_, bytes});
    leg.bytes += bytes, in_part_ += bytes;
    settle();
  }
  offset_ += leg.bytes;
  return leg;
}

}  // namespace hetsp::checkpoint
