// One pass, longest item first, for fixed targets: each item into the open bin where it wastes least, or into a new one. A bin
// keeps the mode it was opened with. Bins are found by mode and by the time they have left, so a pass takes
// O(items * modes in use), however many bins there are.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/need.h"
#include "hetsp/packing/packing.h"
#include "hetsp/packing/random.h"

namespace hetsp::packing {

class Greedy {
 public:
  // `instance`, its items by falling size, must outlive this.
  Greedy(const Instance& instance, int micro_batches);

  struct Weights {
    double slack = 0.1;   // of what is left in the bin, priced
    double extra = 1.0;   // of the cost over that of the item's own best mode
    double tokens = 0.0;  // of room left in the bin
    double open = 0.2;    // a new bin rather than an open one where the extra is more than this part of the own cost
    double waste = 0.0;  // of the part of the bin that the item takes: few large items leave more of it unused than many small
    double noise = 0.0;
    bool largest = false;  // open the largest mode: where memory alone decides
    std::vector<double> time_share;  // [mode]: Prices
    std::vector<double> per_mode;  // [mode]: factors of cost
    [[nodiscard]] Weights near(Random& random) const;  // the same, a little changed
    static Weights draw(Random& random, const Instance& instance, const std::vector<double>& time_share);
  };
  // targets: [micro-batch], seconds, may be infinite. True: `bins` holds all items.
  bool pack(const std::vector<double>& targets, const Weights& weights, Random& random, Effort& effort,
            std::vector<Packing>& packings);

 private:
  static constexpr int kLevels = 64;  // of time left, one bit each
  struct Open {
    double time_left;  // over the target
    std::int64_t tokens_left;
    std::int32_t kind, level, next, before;
  };
  struct Kind {  // a mode in a micro-batch
    std::int32_t micro_batch, mode;
    double worth;  // rank-seconds when full: ranks * target
    std::uint64_t levels = 0;  // those that have bins
    std::int32_t first[kLevels];  // bins
  };
  struct Choice {
    std::int32_t at = -1;  // a kind, or a bin
    double cost = 0.0;  // of the item there
  };
  // Of one item on each rank of a kind, over the target; where there is none, the part of the room it takes.
  [[nodiscard]] double time(const Kind& kind, const Item& item) const;
  [[nodiscard]] double cost(const Kind& kind, const Item& item, const Weights& weights) const;
  static std::int32_t level(double time_left);
  void consider(std::int32_t kind, const Item& item, const Weights& weights, Random& random, bool affordable, Choice& best);
  Choice own(const Item& item, const Weights& weights, Random& random, bool affordable);
  // The open bin where the item wastes least, among kinds where its cost is at most `limit`.
  Choice fullest(const Item& item, double own_cost, double limit, const Weights& weights, Random& random);
  void enter(std::int32_t item, std::int32_t bin);
  std::int32_t open(std::int32_t kind);
  void link(std::int32_t bin);
  void unlink(std::int32_t bin);

  const Instance* instance_;
  std::vector<Need> needs_;  // [micro-batch]
  std::vector<bool> timeless_;  // [micro-batch]: there is no target
  std::vector<std::int64_t> left_;  // [micro-batch]: ranks
  std::vector<Kind> kinds_;  // [micro-batch * modes + mode]
  std::vector<std::int32_t> used_;  // kinds with bins, in the order of their first
  std::vector<Open> open_;  // bins
  std::vector<std::int32_t> bin_of_;  // [item]
  std::int64_t visits_ = 0;
};

}  // namespace hetsp::packing
