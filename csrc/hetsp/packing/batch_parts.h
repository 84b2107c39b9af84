// Large batches, some micro-batches at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/packing.h"
#include "hetsp/packing/random.h"

namespace hetsp::packing {

// A pass over all micro-batches costs items times micro-batches, and most micro-batches of a large batch are alike. So items
// are dealt, by falling size and there and back, into parts that look like the whole and need some micro-batches each;
// BatchSearch plans each part alone. After that a few micro-batches of the whole are planned anew at a time, whichever part
// they came from (a large neighbourhood search: Shaw, CP'98).
class BatchParts {
 public:
  // `instance`, its items by falling size, must outlive this.
  BatchParts(const Instance& instance, double fixed_seconds, std::uint64_t seed);

  // One packing per micro-batch; none where some part's memory was too full. fewest: micro-batches that memory asks for.
  std::optional<std::vector<Packing>> deal(int fewest, Effort& effort);
  // Plans some of the micro-batches, none empty, anew, in no more micro-batches than they had. True if they got better.
  bool improve(std::vector<Packing>& micro_batches, Effort& effort);

 private:
  std::optional<std::vector<Packing>> plan(const std::vector<std::int32_t>& items, int most, const std::vector<Packing>& known,
                                           Effort& effort);

  const Instance& instance_;
  double fixed_;
  Random random_;
};

}  // namespace hetsp::packing
