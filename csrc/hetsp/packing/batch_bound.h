// The lower bound of a whole batch: whatever micro-batches its items are put into.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hetsp/packing/batch_lp.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/item_types.h"

namespace hetsp::packing {

// What k micro-batches with makespans T_1, ..., T_k cost is sum (T_m + fixed). For any pi >= 0 they hold all items only where
//
//   sum_m Phi(T_m) >= sum_i pi_i n_i,      Phi(T) = ranks x the most profit that one rank can earn by T,
//
// for each group's profit is at most that of its ranks. So with T cut into levels (T_{g-1}, T_g], y_g micro-batches in level g,
// and a set of such pi, no batch costs less than the integer programme
//
//   min sum_g (T_{g-1} + fixed) y_g    subject to  one row  sum_g Phi(T_g) y_g >= pi n  per pi,
//                                                  as many micro-batches as memory asks for, one that is long enough for the
//                                                  longest.
//
// It is solved by enumeration for up to three micro-batches, else by branch and bound; BatchLp then says whether micro-batches
// of its makespans can hold the items, or gives the pi that proves they cannot, which becomes a row (Benders, Numer. Math. 4,
// 1962). Where they can, levels are made finer.
class BatchBound {
 public:
  // micro_batches: at most so many, or 0. makespans: of the micro-batches of some plan, without the fixed seconds: its
  // proportions are where the first pi are looked for.
  BatchBound(const Instance& instance, double fixed_seconds, int micro_batches, std::vector<double> makespans);

  // Until the effort is spent, done(), or lower() (1 + gap) >= upper.
  void advance(Effort& effort, double upper, double gap);

  [[nodiscard]] double lower() const { return lower_; }  // seconds, fixed ones included
  [[nodiscard]] bool done() const { return done_; }

 private:
  struct Row {
    std::vector<double> profit;          // [types] pi
    double need = 0.0;                   // pi n
    std::vector<double> per_microbatch;  // [levels] Phi
  };
  bool refine();
  bool refute(const std::vector<int>& y, Effort& effort, bool* refuted);
  bool earn(Row& row, const std::vector<int>& exact, Effort& effort);
  double choose(std::vector<int>& y, Effort& effort) const;
  double enumerate(int micro_batches, double best, std::vector<int>& y, Effort& effort) const;
  double branch_and_bound(int fewest, std::vector<int>& y, Effort& effort) const;

  double ranks_, fixed_, upper_;
  int fewest_ = 1, most_;  // micro-batches
  const Instance& instance_;
  ItemTypes types_;
  std::unique_ptr<BatchLp> lp_;  // over level_
  double longest_ = 0.0;        // seconds that some item takes at least
  double area_ = 0.0;           // rank-seconds of all items where each takes its cheapest mode
  double ratio_ = 1.0;          // of neighbouring levels
  std::vector<double> level_;   // [levels] T_g
  std::vector<Row> rows_;
  std::vector<double> shape_;   // makespans of a plan, by falling seconds
  double scale_below_ = 0.0, scale_above_ = 1.0;  // of shape_: refuted, not refuted
  double lower_ = 0.0;
  bool done_ = false;
};

}  // namespace hetsp::packing
