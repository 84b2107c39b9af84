#include "hetsp/checkpoint/copying.h"

#include <algorithm>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/staging/stream_copy.h"

namespace hetsp::checkpoint {

namespace {

// Copied and hashed at a time: the second reading must find it in the cache. 64 to 256 KiB give the same rate.
constexpr std::int64_t kBlock = std::int64_t{128} << 10;
// Hashed of a slot before the devices are looked after: 50 us.
constexpr std::int64_t kHashedAtOnce = std::int64_t{1} << 20;

}  // namespace

Capture::Copying::Copying(Capture& capture, staging::Ring& ring, WriteQueue& queue)
    : capture_(capture),
      ring_(ring),
      queue_(queue),
      legs_(capture.header_bytes(), capture.request_.spans,
            capture.devices_ != nullptr ? capture.devices_->options().chunk_bytes : ring.slot_bytes()),
      hasher_(capture.request_.checksum, capture.header_bytes(), capture.header_hash_, capture.extents_) {}

Capture::Copying::~Copying() {
  for (const auto& [device, moment] : capture_.moments_) copier(device).drain();
  for (const int slot : held_) ring_.release(slot);
}

staging::DeviceCopier& Capture::Copying::copier(int device) { return capture_.devices_->at(device); }

void Capture::Copying::run() {
  if (!capture_.moments_.empty() && !capture_.stopped_) capture_.devices_->enter(ring_.slot(0), ring_.bytes());
  while (!capture_.stopped_ && !(legs_.done() && flight_.empty() && unhashed_.empty())) {
    if (begin_next()) continue;
    if (!flight_.empty() && (unhashed_.empty() || landed()))
      land();
    else if (!unhashed_.empty())
      hash_some();
  }
}

// False where the next leg has to wait for those before it.
bool Capture::Copying::begin_next() {
  if (legs_.done()) return false;
  const int device = legs_.device();
  const bool idle = flight_.empty() && unhashed_.empty();
  if (device == kHost ? !idle : copier(device).full()) return false;
  if (slot_ < 0 && !take_slot()) return idle;  // idle: it has stopped
  char* const to = ring_.slot(slot_) + filled_;
  Leg leg = legs_.next(ring_.slot_bytes() - filled_);
  if (device != kHost) {
    std::vector<staging::DevicePiece> pieces;
    for (const Leg::Piece& piece : leg.pieces)
      pieces.push_back({static_cast<const char*>(capture_.source(piece.span)) + piece.begin, piece.bytes});
    copier(device).begin(*capture_.moments_.at(device), pieces, to);
  }
  filled_ += leg.bytes;
  const bool last = filled_ == ring_.slot_bytes() || legs_.done();
  flight_.push_back({std::move(leg), slot_, to, last});
  if (last) slot_ = -1;
  return true;
}

bool Capture::Copying::take_slot() {
  std::optional<int> slot;
  held_.reserve(held_.size() + 1);
  if (flight_.empty() && unhashed_.empty()) {
    const auto acquired = ring_.acquire([this] { return capture_.stopped_.load(); });
    if (!acquired) return false;
    slot = acquired->slot;
    const std::lock_guard lock(capture_.mutex_);
    capture_.seconds_.ring_full += acquired->waited;
  } else {
    slot = ring_.try_acquire();
    if (!slot) return false;
  }
  held_.push_back(*slot);
  slot_ = *slot, filled_ = 0;
  return true;
}

bool Capture::Copying::landed() {
  const int device = flight_.front().leg.device;
  return device == kHost || copier(device).landed();
}

void Capture::Copying::land() {
  const Flight flight = std::move(flight_.front());
  flight_.pop_front();
  if (flight.leg.device == kHost) {
    land_host(flight);
    if (capture_.stopped_) return;
  } else {
    land_device(flight);
  }
  if (legs_.done() && flight_.empty()) capture_.note_captured();
  if (flight.leg.device == kHost) {
    if (flight.last) hand_on(flight);
  } else {
    unhashed_.push_back(flight);
  }
}

void Capture::Copying::land_host(const Flight& flight) {
  char* to = flight.to;
  for (const Leg::Piece& piece : flight.leg.pieces)
    for (std::int64_t done = 0; done < piece.bytes;) {
      if (capture_.stopped_) return;
      const std::int64_t bytes = std::min(kBlock, piece.bytes - done);
      const char* from = static_cast<const char*>(capture_.source(piece.span)) + piece.begin + done;
      staging::stream_copy(to, from, static_cast<std::size_t>(bytes));
      hasher_.update(from, bytes);
      to += bytes, done += bytes;
      capture_.note_passed(piece.span, piece.begin + done);
      capture_.publish(hasher_.offset(), hasher_.offset() == flight.leg.offset + flight.leg.bytes);
    }
}

void Capture::Copying::land_device(const Flight& flight) {
  copier(flight.leg.device).finish();
  capture_.note_arrived(flight.leg.device);
  const char* at = flight.to;
  for (const Leg::Piece& piece : flight.leg.pieces) {
    capture_.note_landed(piece.span, piece.begin, at, piece.bytes);
    at += piece.bytes;
  }
  capture_.publish(flight.leg.offset + flight.leg.bytes, true);
}

void Capture::Copying::hash_some() {
  const Flight& flight = unhashed_.front();
  const std::int64_t done = hasher_.offset() - flight.leg.offset;
  hasher_.update(flight.to + done, std::min(kHashedAtOnce, flight.leg.bytes - done));
  if (hasher_.offset() < flight.leg.offset + flight.leg.bytes) return;
  if (flight.last) hand_on(flight);
  unhashed_.pop_front();
}

void Capture::Copying::hand_on(const Flight& flight) {
  const std::int64_t end = flight.leg.offset + flight.leg.bytes, bytes = flight.to + flight.leg.bytes - ring_.slot(flight.slot);
  capture_.submit(ring_, queue_, flight.slot, bytes, end - bytes);
  held_.erase(std::find(held_.begin(), held_.end(), flight.slot));
}

}  // namespace hetsp::checkpoint
