// What a caller of pack() and pack_batch() allows.
#pragma once

#include <atomic>
#include <cstdint>

namespace hetsp::packing {

struct Limits {
  std::int64_t work = 0;     // visits of an item in a group or column, over all threads; 0: in proportion to the instance
  double seconds = 0.0;      // on this machine's clock, 0: none. What it cuts off is not reproducible
  std::uint64_t seed = 0;    // of the search's draws
  double target_gap = 0.0;   // makespan / lower bound - 1 at which to stop
  const std::atomic<bool>* cancel = nullptr;  // set by another thread: return with what there is
};

}  // namespace hetsp::packing
