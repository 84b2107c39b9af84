// A one-way link between two processes in a piece of memory that both have: frames in the order in which they were put.
//
//   control   positions, each written by one side
//   ring      records: a header with its payload, or with the number of a slot; taken and given back in order
//   slots     room for a large payload each; given back in any order, from any thread
//
// The writer copies a frame in, then moves `head`; the reader sees whole frames or none, however the writer ends. Neither
// waits: a writer without room says which position it waits for, and the reader rings its bell when that is reached.
//
// The other process is trusted no further than to keep its own bytes wrong: positions, lengths and numbers are copied out of
// the shared memory, then checked; a wrong one is an error, not a crash. All zeros is an empty link.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "c10d/bell.h"
#include "hetsp/comm/frame.h"

namespace hetsp::routed {

// Both sides must have the same.
struct RingShape {
  std::size_t ring_bytes = 0;    // a power of two
  std::size_t slot_payload = 0;  // bytes
  std::uint32_t slots = 0;       // at most most_slots

  static constexpr std::uint32_t most_slots = 32;
  static constexpr std::size_t page = 4096;

  std::size_t inline_payload() const;  // the largest that fits into the ring
  std::size_t slot_bytes() const;
  std::size_t bytes() const;  // of the whole link, full pages
};

struct RingControl;

// Of one thread.
class RingWriter {
 public:
  // `memory`: page-aligned, shape.bytes() of it. `reader`: the bell of the other side.
  RingWriter(std::shared_ptr<std::byte> memory, RingShape shape, Bell reader);

  enum class Put { done, full, broken };
  // header.length says how much of the payload goes in. Full: nothing was put; ask for room, then try once more.
  Put put(const comm::Header& header, std::span<const std::byte> payload, bool in_slot);

  bool has_room(std::size_t payload, bool in_slot) const;
  std::uint32_t slots_used() const;  // held by the reader, or on the way to it
  void want_ring();                     // ring this side's bell when there is more room, half of the ring if possible,
  void want_slots(std::uint32_t used);  // ... when no more than so many slots are in use

 private:
  RingControl& control() const;
  std::uint64_t ring_used() const;
  std::size_t ring_needed(std::size_t payload) const;
  int free_slot() const;

  std::shared_ptr<std::byte> memory_;
  RingShape shape_;
  Bell reader_;
  std::uint64_t head_ = 0, taken_ = 0;  // bytes put; slots taken
};

// Of one thread, but for release().
class RingReader {
 public:
  RingReader(std::shared_ptr<std::byte> memory, RingShape shape, Bell writer);

  struct Frame {
    comm::Header header;
    std::span<std::byte> payload;  // in the ring: until pop(); in a slot: until release()
    int slot = -1;
  };
  enum class Take { nothing, frame, broken };

  bool empty() const;
  Take take(Frame& frame, std::string& why);  // the oldest, which stays; once broken, always broken
  void pop();                                 // after take()
  void release(int slot);

  std::uint32_t held() const { return held_count_.load(std::memory_order_relaxed); }  // slots that were not released

 private:
  RingControl& control() const;
  Take broken(std::string& why, const std::string& what);

  std::shared_ptr<std::byte> memory_;
  RingShape shape_;
  Bell writer_;
  std::uint64_t tail_ = 0;
  std::uint64_t next_ = 0;  // where the frame after the one that was taken begins
  int slot_ = -1;           // of that one
  std::string broken_;
  std::array<std::atomic<bool>, RingShape::most_slots> held_{};
  std::atomic<std::uint32_t> held_count_{0};
};

}  // namespace hetsp::routed
