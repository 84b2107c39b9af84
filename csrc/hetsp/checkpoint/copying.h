// The way of one capture through the ring, on the engine's copy thread: legs are begun, land, are hashed, and full slots are
// handed to the disk.
//
//   host     copied past the caches, hashed while the source is in them: begun and landed at once
//   device   begun: a chunk is under way to its slot; landed: it is there, and its group may be released; hashed, from the
//            slot, when there is nothing else to do: while the device could copy it is given the next chunk first
//
// Legs land, are hashed and leave in the order of the file. A slot is begun anew only after the disk has given it back, and the
// disk gets it only after all of its legs are hashed. Where the capture stops in the middle, the end waits for what is under
// way before it gives back the slots that it goes to.
#pragma once

#include <deque>
#include <vector>

#include "hetsp/checkpoint/capture.h"
#include "hetsp/checkpoint/extent_hasher.h"
#include "hetsp/checkpoint/legs.h"

namespace hetsp::checkpoint {

class Capture::Copying {
 public:
  Copying(Capture& capture, staging::Ring& ring, WriteQueue& queue);
  ~Copying();
  Copying(const Copying&) = delete;
  Copying& operator=(const Copying&) = delete;

  void run();  // until all is handed on or the capture has stopped. Throws DeviceError, std::bad_alloc

 private:
  struct Flight {
    Leg leg;
    int slot;
    char* to;
    bool last;  // of its slot
  };
  [[nodiscard]] bool begin_next();
  [[nodiscard]] bool take_slot();
  [[nodiscard]] bool landed();
  void land();
  void land_host(const Flight& flight);
  void land_device(const Flight& flight);
  void hash_some();
  void hand_on(const Flight& flight);
  [[nodiscard]] staging::DeviceCopier& copier(int device);

  Capture& capture_;
  staging::Ring& ring_;
  WriteQueue& queue_;
  Legs legs_;
  ExtentHasher hasher_;
  std::deque<Flight> flight_;  // begun
  std::deque<Flight> unhashed_;  // landed
  std::vector<int> held_;  // slots that are not the disk's
  int slot_ = -1;  // that the next leg goes to, if it has room
  std::int64_t filled_ = 0;  // bytes of it
};

}  // namespace hetsp::checkpoint
