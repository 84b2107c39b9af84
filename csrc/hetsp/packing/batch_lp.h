// The configuration LP of several micro-batches with given makespans.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/knapsack.h"

namespace hetsp::packing {

// Makespans come from a rising list of levels T_0 < T_1 < ...; y_g micro-batches may take up to T_g. Columns are those of
// ConfigurationLp, each of the lowest level g that it ends by, and ranks that it does not find there it borrows above:
//
//   min sigma   subject to   sum_c a_ic x_c >= n_i                                               for every type i
//                            sum of ranks_c x_c over level g + up_{g-1} - up_g - [g top] sigma <= ranks y_g   for every level g
//
// with x, up, sigma >= 0. Too few ranks by sigma > 0: no micro-batches with these makespans hold the items. It is proven by any
// pi >= 0 with sum pi_i n_i > sum_g ranks y_g P(T_g), where P(T) bounds what one rank can earn by T. Only the right-hand sides
// know y, so that one simplex goes on from choice to choice.
class BatchLp {
 public:
  enum class Verdict { refuted, feasible, unknown };

  // items: one per type. levels: rising.
  BatchLp(const Instance& instance, std::vector<Item> items, std::vector<std::int32_t> count, std::vector<double> levels);

  // y: [levels]. finest: visits of an item that one pricing may take.
  Verdict solve(const std::vector<int>& y, Effort& effort, std::int64_t finest);

  // After refuted: the pi that proves it; empty where some item ends by no level with y > 0.
  [[nodiscard]] const std::vector<double>& multipliers() const { return multipliers_; }

  // P(T): the most profit that one rank can earn by T, an upper bound.
  [[nodiscard]] double profit_per_rank(const std::vector<double>& profit, double T, std::int64_t work, Effort& effort);

  [[nodiscard]] const std::vector<double>& levels() const { return levels_; }

 private:
  double price(std::size_t mode, double T, double threshold_per_rank, const std::vector<double>& profit, std::int64_t work,
               Effort& effort);
  void add_column(std::int32_t mode, const Fill& fill);
  [[nodiscard]] std::int32_t level_of(double seconds) const;

  std::vector<Mode> modes_;
  std::vector<Item> items_;           // [types]
  std::vector<std::int32_t> count_;   // [types]
  std::vector<double> levels_;
  double ranks_;
  std::vector<double> shortest_;      // [types] seconds
  lp::Simplex lp_;                    // rows: types, levels
  Knapsack knapsack_;
  std::vector<double> mixture_;  // [modes]
  std::vector<KnapsackItem> priced_;
  std::vector<lp::Entry> entries_;
  std::vector<double> multipliers_;
};

}  // namespace hetsp::packing
