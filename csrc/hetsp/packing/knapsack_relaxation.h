// The LP relaxation of a knapsack with two constraints, and the prices that prove it.
#pragma once

#include <cstddef>
#include <vector>

namespace hetsp::packing {

// max sum p_i x_i   subject to   sum t_i x_i <= t,   sum s_i x_i <= s,   0 <= x_i <= n_i.
//
// Any prices a, b >= 0 of seconds and tokens give the upper bound
//
//   a t + b s + sum_i n_i max(0, p_i - a t_i - b s_i),
//
// and the best ones the value (duality). For one mixture m both constraints are one of weight (1 - m) t_i / T + m s_i / S, and
// its price is where the items that are worth it fill what is left, the last ones in part (Dantzig, Oper. Res. 5, 1957). Then
// one resource is overfilled and the other is not, and m goes towards the former. Prices are rough at first, for only the
// direction matters then; no item is sorted.
class KnapsackRelaxation {
 public:
  void clear();
  void add(double profit, double seconds, double tokens, double count);

  // The least bound that was found, at most 1e-3 or so above the value. T, S > 0 or 0: the units in which m mixes; m: where to
  // begin. Over as soon as the bound is at most `enough`.
  double solve(double T, double S, double t, double s, double m, double enough);

  // Of that bound.
  [[nodiscard]] double per_second() const { return per_second_; }
  [[nodiscard]] double per_token() const { return per_token_; }
  [[nodiscard]] double mixture() const { return m_; }

 private:
  struct Use {
    double seconds = 0.0, tokens = 0.0, gain = 0.0;
  };
  [[nodiscard]] Use use(double a, double b) const;
  [[nodiscard]] double dearest(double second, double token) const;

  std::vector<double> profit_, seconds_, tokens_, count_;  // [items, and until the next multiple of 4 some of nothing]
  std::size_t items_ = 0;
  double per_second_ = 0.0, per_token_ = 0.0, m_ = 0.5;
  double price_ = 1.0;  // of a unit of weight, where solve() ended last
};

}  // namespace hetsp::packing
