// One step of the local search: take items out of a few groups and put them back where they cost least (ruin and recreate,
// Schrimpf et al., J. Comput. Phys. 159, 2000; leaving out places at random as Christiaens and Vanden Berghe do, Transp. Sci.
// 54, 2020), kept with the probability of simulated annealing on
//
//   E = sum of Need::cost over groups  +  kMissing * ranks that are missing, over micro-batches.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/partition.h"
#include "hetsp/packing/random.h"

namespace hetsp::packing {

class Ruin {
 public:
  Ruin(Partition& partition, std::uint64_t seed);

  // temperature: ranks. True if the partition is another now. Items are in no group while it runs, in one afterwards.
  bool step(Effort& effort, double temperature);
  // Puts an item that is in no group where E rises least. False where it fits nowhere.
  bool insert(std::int32_t item, Effort& effort);
  [[nodiscard]] double energy() const;
  [[nodiscard]] double mean_ranks() const;     // of a group
  [[nodiscard]] std::int64_t missing() const;  // ranks, over all micro-batches

 private:
  void choose_groups();
  void take(std::int32_t item);
  void take_from(std::int32_t g);
  bool place(std::int32_t item);
  void place_together();
  void touch(std::int32_t g);
  void undo();

  struct Moved {
    std::int32_t item, from;
  };
  struct Touched {
    std::int32_t g;
    Group before;
    bool kept_some;
  };
  Partition& partition_;
  Random random_;
  std::int64_t visits_ = 0;
  double noise_ = 0.0;                     // ranks over 2^16
  std::uint32_t blink_ = 0;                // of 2^32
  std::vector<Moved> moved_;
  std::vector<Touched> touched_;
  std::vector<std::int64_t> stamp_;        // [group]: step in which it was touched
  std::int64_t step_ = 0;
  std::vector<std::int32_t> candidates_;   // groups that items may enter in this step
  std::vector<std::int64_t> candidate_in_; // [group]: step in which it is a candidate
  std::vector<std::int32_t> taken_;        // scratch: items of the group at hand
};

}  // namespace hetsp::packing
