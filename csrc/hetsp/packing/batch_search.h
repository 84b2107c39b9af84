// Good packings of a whole batch: how many micro-batches, which items in which, and the groups of each, together. What is
// minimised is
//
//   sum over micro-batches of  (makespan + fixed seconds).
//
//   first    the items by falling size, cut into consecutive micro-batches (SortedCut), each packed by Search
//   improve  greedy passes over all micro-batches at once, their targets in many proportions; then local search (Refine) that
//            moves items between micro-batches while it lowers one target or trades one against another
//
// The sorted cut alone leaves long items among themselves: their micro-batch lasts long and its memory stays empty, while the
// short ones pay for another. Several counts of micro-batches are kept alive, and the better ones get more of the effort.
// Batches of many micro-batches are improved by BatchParts instead. Deterministic for (instance, seed, effort in work units).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/order.h"
#include "hetsp/packing/passes.h"
#include "hetsp/packing/prices.h"
#include "hetsp/packing/random.h"
#include "hetsp/packing/refine.h"

namespace hetsp::packing {

class BatchParts;

class BatchSearch {
 public:
  // fixed_seconds: of each micro-batch, at least 0. micro_batches: at most so many, or 0 to choose.
  // Throws InvalidArgument as check(instance) does, or naming the argument.
  BatchSearch(const Instance& instance, double fixed_seconds, int micro_batches, std::uint64_t seed);
  ~BatchSearch();

  // One packing per micro-batch, none empty. No value: none was found, which proves nothing.
  std::optional<std::vector<Packing>> first();
  // Works until the effort is spent or seconds() is at most `stop_at`. True if best() got better.
  bool improve(Effort& effort, double stop_at = 0.0);
  // The best so far; only after first() or offer() gave one.
  [[nodiscard]] const std::vector<Packing>& best() const;
  [[nodiscard]] double seconds() const { return best_seconds_; }  // of best(): the sum above
  [[nodiscard]] bool found() const { return found_; }
  // From elsewhere, taken over where it is better. Throws InvalidArgument where it does not hold every item once, or a packing
  // is none.
  void offer(const std::vector<Packing>& micro_batches);

 private:
  struct Count {  // one count of micro-batches
    int micro_batches = 0;
    bool found = false, fresh = false;  // fresh: refine has not seen the best
    std::vector<Packing> best;          // of order_.instance, empty ones at the end
    double seconds = 0.0;
    int greedy_rounds = 0;
    Greedy::Weights weights;            // of the best greedy round
    std::vector<double> shape;          // its targets, in proportion
    double greedy_seconds = 0.0;        // what it reached
    double cut = 0.01;        // of the seconds: how far below the best the next targets lie
    std::int64_t steps = 0;   // of the next refine round
    std::unique_ptr<Passes> passes;
    std::unique_ptr<Refine> refine;
  };
  [[nodiscard]] double cost(const std::vector<Packing>& micro_batches) const;
  bool take(Count& count, std::vector<Packing> micro_batches);
  bool start(Count& count, Effort& effort);
  bool greedy_round(Count& count, Effort& effort);
  bool refine_round(Count& count, Effort& effort, double stop_at);
  // Seconds of one of the longer items in some mode: where a target often lies, as that item alone decides it.
  double breakpoint(const Count& count);
  std::vector<double> lower_targets(const Count& count, double by);
  Count& choose();
  void improve_parts(Effort& effort, double stop_at);

  Order order_;
  double fixed_;
  Random random_;
  Prices prices_;
  std::vector<Count> counts_;
  std::vector<Packing> attempt_;
  std::unique_ptr<BatchParts> parts_;  // of large batches
  bool may_add_ = false;  // larger counts, where these are infeasible
  bool found_ = false;
  std::vector<Packing> best_;
  double best_seconds_ = 0.0;
};

}  // namespace hetsp::packing
