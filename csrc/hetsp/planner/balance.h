// The search of the strategy `auto`: sequences of very different lengths on ranks, any degree, so that the most loaded rank
// ends early. Ranks may serve several groups, so loads add up and no packing of disjoint groups is needed.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/planner/strategies.h"

namespace hetsp::planner {

// How long the search may go on, in visits of a rank (reproducible) and, optionally, in seconds (not). A first assignment is
// finished in any case.
class Budget {
 public:
  Budget(std::int64_t work_limit, double seconds);
  [[nodiscard]] bool spent(std::int64_t work) const;  // `work` visits done

 private:
  std::int64_t work_limit_;
  double deadline_;  // seconds of the steady clock
};

struct Balanced {
  Assignment places;  // [which]
  double makespan;    // seconds, without micro_batch_seconds
  std::int64_t work;  // visits of a rank
};

// Places the sequences `which` into `micro_batches` micro-batches whose loads add up, near or at `bound` seconds. None if
// the passes below find no room. Three parts:
//
//   1 passes   For falling granularity g and a rising target T: longest first, each sequence onto the fewest least loaded
//              ranks such that t_d <= g^(work / longest work) T and the ranks end by T. g = 1 shares what must be shared;
//              small g shares long ones more, which balances finer and communicates more. The best pass goes on.
//   2 descent  The most loaded rank gives a sequence away: to the least loaded ranks at the best degree, or in exchange for
//              a shorter one, while its load falls.
//   3 ruin and recreate (Schrimpf et al., J. Comput. Phys. 159, 2000): some sequences of the most loaded and of random ranks
//              are taken off and put back as in 1, then descent; kept where makespan, then communication, is no worse.
//
// At last sequences come back onto fewer ranks where that costs at most 0.5 % of the makespan in all: a short one on one rank
// sends no messages.
[[nodiscard]] std::optional<Balanced> balance(const Problem& problem, const std::vector<int>& which, int micro_batches,
                                              double bound, const Budget& budget);

}  // namespace hetsp::planner
