// Prices of items by what the pools that must hold them are short of.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"

namespace hetsp::packing {

// Relax the content of groups to a fluid: an item may be cut, but stands only where it fits as a whole. A slot is a kind of
// group with `seconds` and `tokens` to give; a pool has `ranks` for its slots. With m in [0, 1] for each slot, w = (1 - m) t /
// seconds + m s / tokens is what an item takes of one group there, a surrogate of both constraints (Greenberg and Pierskalla,
// Oper. Res. 18, 1970), and with weights lambda >= 0 of the pools
//
//   pi_i = min over pools p and their slots k that item i fits    lambda_p ranks_k w_k(i)
//
// are prices at which no group is worth more than its ranks. So the pools hold all items only where
//
//   sum_i pi_i n_i <= sum_p lambda_p ranks_p,
//
// for any m and lambda; at the best ones this is the dual of the fluid LP. At m = 0 it is the area bound.
class PoolPrices {
 public:
  struct Slot {
    std::int32_t mode = 0;  // whose seconds an item takes
    double ranks = 1.0;     // of one group, in units of the pool's
    double seconds = 0.0, tokens = 0.0;
  };
  struct Pool {
    double ranks = 0.0;
    std::vector<Slot> slots;
  };

  // count: [items] how many there are of each, at least 0.
  PoolPrices(const std::vector<Mode>& modes, const std::vector<Item>& items, std::vector<double> count);

  // Ascends, one m or lambda at a time, to a large ratio of sum pi_i n_i and sum lambda_p ranks_p, which it returns: above 1
  // the pools do not hold the items. Infinity where some item fits no slot; its price is then 1, that of all others 0.
  double ascend(const std::vector<Pool>& pools, Effort& effort);

  // [items] pi of the last ascend().
  [[nodiscard]] const std::vector<double>& prices() const { return prices_; }

  // What the content of one group of `mode` with room for `tokens` may be worth at these prices, an upper bound, for each of
  // its rising `seconds`. prices: [items], at least 0. worth: [seconds].
  void worth(const std::vector<double>& prices, int mode, double tokens, const std::vector<double>& seconds,
             std::vector<double>& worth) const;

 private:
  struct Line {  // of one slot
    double m = 0.5, ranks = 1.0;
    std::vector<double> time, memory,
        price;  // [items] ranks t / seconds, ranks s / tokens, their mixture; kNever: does not fit
    void mix();
  };
  struct Lines {  // of one pool
    double lambda = 1.0, ranks = 0.0;
    std::vector<Line> slots;
    std::vector<double> lowest;  // [items] over slots
  };
  void prepare(const std::vector<Pool>& pools);
  void best_mixture(Lines& lines, std::size_t slot, double ahead);
  void best_weight(Lines& lines, double ahead);
  void lower_others(const Lines& but);
  double ratio();

  std::size_t items_;
  std::vector<double> seconds_;  // [modes][items]
  std::vector<std::int32_t> order_;  // [modes][items] by rising seconds
  std::vector<double> tokens_;       // [items]
  std::vector<double> count_;        // [items, and zeros up to whole lanes]
  std::vector<Lines> pools_;
  std::vector<double> others_;  // [as count_]
  std::vector<double> prices_;  // [items]
};

}  // namespace hetsp::packing
