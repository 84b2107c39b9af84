// Brings packings of one or several micro-batches down to smaller makespans: targets are set below what is known, which costs
// ranks that are not there, and Ruin wins them back.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/partition.h"
#include "hetsp/packing/random.h"
#include "hetsp/packing/ruin.h"

namespace hetsp::packing {

class Refine {
 public:
  // `instance` must outlive this.
  Refine(const Instance& instance, int micro_batches, std::uint64_t seed);

  // Makes these, one per micro-batch (empty ones have no bins), both best and current.
  void start(const std::vector<Packing>& micro_batches);
  struct Pace {
    std::int64_t steps = 1000;
    double hot = 1.0, cold = 0.1;  // ranks: temperatures of the first and the last step
  };
  // Starts from best(), or from where the last call ended, and works until every micro-batch ends by its target. True: best()
  // does so. False: best() is unchanged.
  bool reach(const std::vector<double>& targets, const Pace& pace, bool from_best, Effort& effort);
  // The same from nothing, for a first packing.
  bool build(const std::vector<double>& targets, const Pace& pace, Effort& effort);
  [[nodiscard]] const std::vector<Packing>& best() const { return best_; }

 private:
  bool settle(const std::vector<double>& targets, const Pace& pace, Effort& effort);
  Partition partition_;
  Ruin ruin_;
  std::vector<Packing> best_;
  std::vector<std::int32_t> homeless_;
};

}  // namespace hetsp::packing
