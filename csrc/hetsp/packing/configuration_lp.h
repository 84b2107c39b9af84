// The configuration LP of one micro-batch, by column generation: how many ranks does a makespan need?
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/knapsack.h"

namespace hetsp::packing {

// For a makespan T, a column is the content of one group: a mode k and counts a_i of the item types with sum t_k(i) a_i <= T
// and sum s_i a_i <= room_k. Every packing that ends by T is a set of columns, so the LP (Gilmore and Gomory, Oper. Res. 9,
// 1961)
//
//   min sum_c ranks_c x_c   subject to   sum_c a_ic x_c >= need_i,   x >= 0
//
// never needs more ranks than a packing, and T is refuted where it needs more than there are. Covering is enough: a column
// stays one when an item is dropped. Columns are found by pricing each mode with a Knapsack. With upper bounds P_k of the
// pricing problems under any duals pi >= 0,
//
//   sum pi_i need_i / max(1, max_k P_k / ranks_k)     ranks are needed (Farley, Oper. Res. 38, 1990),
//
// since pi divided by that is dual feasible: T may be refuted long before the LP is solved. For a budget of ranks it is enough
// that no P_k is above ranks_k sum pi_i need_i / budget, so pricing looks for nothing below. The duals of the first rounds are
// wild; what is priced lies between them and a centre, the pi of the best bound so far (Wentges, Int. Trans. Oper. Res. 4,
// 1997), nearer to the duals where no column came of it that the LP lacks. Columns and centre stay for the next makespan.
class ConfigurationLp {
 public:
  struct Column {
    std::int32_t mode = 0;
    double seconds = 0.0;
    Fill fill;  // (type, count)
  };
  enum class Verdict {
    refuted,  // more than `budget` ranks are needed, proven
    feasible,  // the LP does with `budget` ranks
    unknown  // the effort was spent, or pricing was cut off where neither could be shown
  };

  // items: one per type. modes: of the instance. Types that no mode holds make every makespan refuted.
  ConfigurationLp(const std::vector<Mode>& modes, std::vector<Item> items);

  // need: [types] how many of each must be covered. Raises the effort of pricing as needed, up to `finest`, visits of an item.
  Verdict solve(double T, const std::vector<std::int32_t>& need, double budget, Effort& effort, std::int64_t finest = 40'000);

  // Whether the centre alone proves that T needs more than `budget` ranks, by one pricing of every mode.
  bool centre_refutes(double T, const std::vector<std::int32_t>& need, double budget, Effort& effort, std::int64_t work);

  // Of the last solve(): the LP's value in ranks, infinity where some type does not end by T; the best proven bound of it.
  [[nodiscard]] double value() const { return value_; }
  [[nodiscard]] double bound() const { return bound_; }

  [[nodiscard]] std::int64_t work() const { return work_; }  // visits of an item, in all calls

  // Columns with x > 0 of the last solve() that was not refuted.
  [[nodiscard]] std::vector<std::pair<Column, double>> solution() const;

  // [types] where prices begin, such as those of a bound that is known (SurrogateBound::profit); any positive multiple.
  void set_centre(std::vector<double> profits);
  void add(Column column);  // such as a group of a packing that is known; seconds are recomputed
  void add_until(double T, Column column);  // what of it ends by T
  [[nodiscard]] int types() const { return static_cast<int>(items_.size()); }
  [[nodiscard]] double seconds(int mode, const Fill& fill) const;
  [[nodiscard]] const std::vector<Mode>& modes() const { return modes_; }
  [[nodiscard]] const std::vector<Item>& items() const { return items_; }

 private:
  bool begin(double T, const std::vector<std::int32_t>& need);
  void restart(const std::vector<std::int32_t>& need);
  int price(double T, const std::vector<std::int32_t>& need, double enough, std::int64_t work, Effort& effort, double* ratio);

  std::vector<Mode> modes_;
  std::vector<Item> items_;  // [types]
  lp::Simplex lp_;  // columns: one per type alone, then columns_
  std::vector<Column> alone_, columns_;
  std::vector<bool> open_;  // [columns_] may be positive at the present makespan
  Knapsack knapsack_;
  std::vector<double> mixture_;  // [modes] where pricing ended last
  std::size_t next_mode_ = 0;  // where pricing begins
  std::vector<KnapsackItem> priced_;
  std::vector<double> duals_, profit_, centre_;  // [types] of the LP, at least 0; priced; of the best bound so far
  double value_ = 0.0, bound_ = 0.0;
  std::int64_t work_ = 0;
};

}  // namespace hetsp::packing
