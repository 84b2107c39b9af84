#include "c10d/shared_ring.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::routed {

struct RingControl {
  // A cache line for each side that writes.
  alignas(64) std::atomic<std::uint64_t> head;  // of the writer: bytes put
  std::atomic<std::uint64_t> want_tail, want_released;  // ring the writer's bell at these; 0: no need
  alignas(64) std::atomic<std::uint64_t> tail;  // of the reader: bytes given back
  alignas(64) std::atomic<std::uint64_t> released;  // slots given back so far
  alignas(64) std::atomic<std::uint32_t> busy[RingShape::most_slots];  // taken by the writer, cleared by the reader
};

namespace {

struct Record {
  std::uint32_t slot;    // in_ring, skip, or the number of a slot
  std::uint32_t unused;
  comm::Header header;
};

constexpr std::uint32_t in_ring = 0x72696e67, skip = 0x736b6970;
constexpr std::size_t alignment = 16;
static_assert(sizeof(RingControl) <= RingShape::page && sizeof(Record) % 8 == 0);

constexpr std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

std::size_t record_bytes(std::size_t payload) { return round_up(sizeof(Record) + payload, alignment); }

}  // namespace

// Half of the ring: then one that does not fit before its end fits after its beginning, sooner or later.
std::size_t RingShape::inline_payload() const { return ring_bytes / 2 - sizeof(Record); }

// A header before the payload, for a reader that sends it on.
std::size_t RingShape::slot_bytes() const { return round_up(sizeof(comm::Header) + slot_payload, page); }

std::size_t RingShape::bytes() const { return page + round_up(ring_bytes, page) + slots * slot_bytes(); }

namespace {

void check(const RingShape& shape) {
  invariant(shape.ring_bytes >= 4096 && (shape.ring_bytes & (shape.ring_bytes - 1)) == 0, "a ring of ", shape.ring_bytes,
            " bytes");
  invariant(shape.slots <= RingShape::most_slots, "a ring with ", shape.slots, " slots");
}

std::byte* ring_of(std::byte* memory) { return memory + RingShape::page; }

std::byte* slot_of(std::byte* memory, const RingShape& shape, std::size_t slot) {
  return memory + RingShape::page + round_up(shape.ring_bytes, RingShape::page) + slot * shape.slot_bytes() +
         sizeof(comm::Header);
}

// The reader has reached `value`: rings the writer's bell if that is what it waits for.
void reached(std::atomic<std::uint64_t>& wanted, std::uint64_t value, const Bell& bell) {
  std::uint64_t want = wanted.load(std::memory_order_seq_cst);
  if (want != 0 && value >= want && wanted.compare_exchange_strong(want, 0)) bell.ring();
}

}  // namespace

RingWriter::RingWriter(std::shared_ptr<std::byte> memory, RingShape shape, Bell reader)
    : memory_(std::move(memory)), shape_(shape), reader_(std::move(reader)) {
  check(shape_);
}

RingControl& RingWriter::control() const { return *reinterpret_cast<RingControl*>(memory_.get()); }

std::uint32_t RingWriter::slots_used() const {
  return static_cast<std::uint32_t>(taken_ - control().released.load(std::memory_order_seq_cst));
}

int RingWriter::free_slot() const {
  for (std::uint32_t slot = 0; slot < shape_.slots; ++slot) {
    if (control().busy[slot].load(std::memory_order_acquire) == 0) return static_cast<int>(slot);
  }
  return -1;
}

std::uint64_t RingWriter::ring_used() const { return head_ - control().tail.load(std::memory_order_seq_cst); }

// A record stands in one piece: where it does not fit before the end, what is left there is skipped.
std::size_t RingWriter::ring_needed(std::size_t payload) const {
  const std::size_t bytes = record_bytes(payload), before_end = shape_.ring_bytes - (head_ & (shape_.ring_bytes - 1));
  return before_end < bytes ? before_end + bytes : bytes;
}

bool RingWriter::has_room(std::size_t payload, bool in_slot) const {
  return ring_used() + ring_needed(in_slot ? 0 : payload) <= shape_.ring_bytes && (!in_slot || slots_used() < shape_.slots);
}

RingWriter::Put RingWriter::put(const comm::Header& header, std::span<const std::byte> payload, bool in_slot) {
  invariant(payload.size() == header.length && payload.size() <= (in_slot ? shape_.slot_payload : shape_.inline_payload()),
            "a frame of ", payload.size(), " bytes, whose header says ", header.length, ", does not fit");
  if (ring_used() > shape_.ring_bytes || slots_used() > shape_.slots) return Put::broken;
  if (!has_room(payload.size(), in_slot)) return Put::full;
  const int slot = in_slot ? free_slot() : -1;
  if (in_slot && slot < 0) return Put::broken;

  std::byte* const ring = ring_of(memory_.get());
  std::size_t at = head_ & (shape_.ring_bytes - 1);
  const std::size_t needed = ring_needed(in_slot ? 0 : payload.size());
  if (needed > record_bytes(in_slot ? 0 : payload.size())) {
    std::memcpy(ring + at, &skip, sizeof skip);
    at = 0;
  }
  const Record record{in_slot ? static_cast<std::uint32_t>(slot) : in_ring, 0, header};
  std::memcpy(ring + at, &record, sizeof record);
  std::byte* const room = in_slot ? slot_of(memory_.get(), shape_, static_cast<std::size_t>(slot)) : ring + at + sizeof record;
  if (!payload.empty()) std::memcpy(room, payload.data(), payload.size());
  if (in_slot) {
    control().busy[slot].store(1, std::memory_order_relaxed);
    ++taken_;
  }
  head_ += needed;
  control().head.store(head_, std::memory_order_seq_cst);
  reader_.ring();
  return Put::done;
}

void RingWriter::want_ring() {
  const std::uint64_t half = head_ - std::min<std::uint64_t>(head_, shape_.ring_bytes / 2);
  control().want_tail.store(std::max(control().tail.load(std::memory_order_relaxed) + 1, half), std::memory_order_seq_cst);
}

void RingWriter::want_slots(std::uint32_t used) { control().want_released.store(taken_ - used, std::memory_order_seq_cst); }

RingReader::RingReader(std::shared_ptr<std::byte> memory, RingShape shape, Bell writer)
    : memory_(std::move(memory)), shape_(shape), writer_(std::move(writer)) {
  check(shape_);
}

RingControl& RingReader::control() const { return *reinterpret_cast<RingControl*>(memory_.get()); }

bool RingReader::empty() const { return control().head.load(std::memory_order_seq_cst) == tail_; }

RingReader::Take RingReader::broken(std::string& why, const std::string& what) {
  if (broken_.empty()) broken_ = "the shared memory holds " + what;
  why = broken_;
  return Take::broken;
}

RingReader::Take RingReader::take(Frame& frame, std::string& why) {
  if (!broken_.empty()) return broken(why, {});
  const std::uint64_t there = control().head.load(std::memory_order_acquire) - tail_;
  if (there == 0) return Take::nothing;
  if (there > shape_.ring_bytes) return broken(why, concat("a position that is ", there, " bytes ahead"));
  std::size_t at = tail_ & (shape_.ring_bytes - 1), left = there;
  std::uint32_t what = 0;
  std::memcpy(&what, ring_of(memory_.get()) + at, sizeof what);
  if (what == skip) {
    left -= std::min(left, shape_.ring_bytes - at);
    at = 0;
  }
  Record record;
  if (left < record_bytes(0) || shape_.ring_bytes - at < record_bytes(0)) return broken(why, "half a frame");
  std::memcpy(&record, ring_of(memory_.get()) + at, sizeof record);
  if (record.header.magic != comm::Header{}.magic) return broken(why, "what is no frame");
  const std::size_t length = record.header.length;
  std::size_t bytes = record_bytes(0);
  if (record.slot == in_ring) {
    if (length > shape_.inline_payload()) return broken(why, concat("a frame of ", length, " bytes"));
    bytes = record_bytes(length);
    if (left < bytes || shape_.ring_bytes - at < bytes) return broken(why, concat("a frame of ", length, " bytes"));
    frame = {record.header, {ring_of(memory_.get()) + at + sizeof record, length}, -1};
  } else {
    if (record.slot >= shape_.slots || length > shape_.slot_payload)
      return broken(why, concat("a frame of ", length, " bytes in slot ", record.slot));
    if (held_[record.slot].load(std::memory_order_acquire)) return broken(why, concat("slot ", record.slot, " twice"));
    frame = {record.header, {slot_of(memory_.get(), shape_, record.slot), length}, static_cast<int>(record.slot)};
  }
  slot_ = frame.slot;
  next_ = tail_ + (there - left) + bytes;
  return Take::frame;
}

void RingReader::pop() {
  if (const int slot = std::exchange(slot_, -1); slot >= 0) {
    held_[static_cast<std::size_t>(slot)].store(true, std::memory_order_relaxed);
    held_count_.fetch_add(1, std::memory_order_relaxed);
  }
  tail_ = next_;
  control().tail.store(tail_, std::memory_order_seq_cst);
  reached(control().want_tail, tail_, writer_);
}

void RingReader::release(int slot) {
  held_[static_cast<std::size_t>(slot)].store(false, std::memory_order_release);
  held_count_.fetch_sub(1, std::memory_order_relaxed);
  control().busy[slot].store(0, std::memory_order_release);
  reached(control().want_released, control().released.fetch_add(1, std::memory_order_seq_cst) + 1, writer_);
}

}  // namespace hetsp::routed
