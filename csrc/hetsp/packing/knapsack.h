// Pricing of the configuration LP: the most profitable content of one group.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "hetsp/packing/knapsack_relaxation.h"

namespace hetsp::packing {

struct KnapsackItem {
  double profit = 0.0, seconds = 0.0;
  double tokens = 0.0;     // an integer below 2^53
  std::int32_t count = 0;  // how often it may be taken
  std::int32_t id = 0;     // the caller's
};

using Fill = std::vector<std::pair<std::int32_t, std::int32_t>>;  // (id, times taken)

// Two-constraint bounded knapsack
//
//   max sum p_i x_i   subject to   sum t_i x_i <= T,   sum s_i x_i <= S,   0 <= x_i <= n_i integer,
//
// by depth-first branch and bound (Martello and Toth, Knapsack Problems, 1990, section 2.5, for one constraint). For any m in
// [0, 1] the surrogate weight w_i = (1 - m) t_i / T + m s_i / S makes one constraint of the two: sum w_i x_i <= 1. The
// relaxation that takes the last item in part (Dantzig, Oper. Res. 5, 1957) is quasiconvex in m (Greenberg and Pierskalla,
// Oper. Res. 18, 1970) and at the best m as good as the LP relaxation. Items go by falling p_i / w_i at that m, as many as fit
// first; a branch ends where its profit and a bound of the rest do not beat the best known. The bound is
//
//   first      the fractional rest at the best m: good where many small items fill the group;
//   by cuts    where that did not finish soon: large items go first. For prices (a, b) >= 0 of seconds and tokens, what is left
//              of both and items j, j + 1, ... can still earn at most
//
//                a t + b s + R_j,   R_j = sum_{i >= j} n_i max(0, p_i - a t_i - b s_i),
//
//              the Lagrangian of the rest: once R_j is known, a look costs two products. Prices are those of the LP relaxation
//              of a choice whose bound by the cuts so far was not enough; there are many, because once a large item is in, time
//              and tokens are no longer short in the same proportion;
//   by table   beside the cuts, for the one m: U_j(c) over cells of weight holds the best of large items j, j + 1, ... with
//              their weights rounded down to cells, and small ones in parts. It knows that items of middling size do not fill
//              a group exactly, which no relaxation does.
class Knapsack {
 public:
  // Looks for fills whose profit is above `threshold`. Afterwards profit() is the best found, 0 where none was, and
  // upper_bound() holds for every fill: max(threshold, profit()) where the search was finished, more where `work` visits of an
  // item were not enough. Sums of seconds may exceed T by a relative 1e-12, so that rounding excludes no fill.
  void solve(const std::vector<KnapsackItem>& items, double T, double S, double threshold, std::int64_t work);

  // The m of the last solve(), from which the next one starts: for problems alike, such as one mode's under changing duals.
  [[nodiscard]] double mixture() const { return m_; }
  void set_mixture(double m) { m_ = m; }

  [[nodiscard]] double profit() const { return profit_; }
  [[nodiscard]] double upper_bound() const { return upper_bound_; }
  [[nodiscard]] std::int64_t work() const { return work_; }  // visits of an item by the last solve()

  // Fills above the threshold, each better than the one before.
  [[nodiscard]] const std::vector<Fill>& fills() const { return fills_; }

 private:
  struct Entry {
    double density, weight, profit, seconds, tokens;
    std::int32_t count, id;
  };
  struct State {  // of a branch
    double seconds, tokens, gain;  // left, left, gained
  };
  struct Choice {  // of large items: those of `parent` and perhaps one more; entries below `next` are decided
    double bound;
    State state;
    std::int32_t next, had, parent, taken;  // had: times that entry `next` is in; taken: an entry, or -1
    double per_second = 0.0, per_token = 0.0, m = -1.0;  // prices of its LP relaxation, or of its parent's; none: -1
    bool relaxed = false;  // that was solved
  };
  struct Cut {
    double per_second = 0.0, per_token = 0.0;
    std::vector<double> rest;  // [large + 1] R_j
  };
  struct Table {
    double per_second = 0.0, per_token = 0.0;
    int cells = 0;
    std::vector<float> best;  // [large + 1][cells + 1] U_j(c)
  };
  struct Mixture {
    double m = 0.0, per_second = 0.0, per_token = 0.0;
    std::vector<std::int32_t> order;  // entries but the large ones, by falling density at this m
    std::vector<double> profit_before, weight_before;  // [order + 1] of their whole counts
    std::vector<double> least_seconds, least_tokens;  // [order + 1] from there on
    void set(double mixture, double T, double S);
    [[nodiscard]] double weight(const Entry& e) const { return per_second * e.seconds + per_token * e.tokens; }
    [[nodiscard]] double left(const State& s) const { return per_second * s.seconds + per_token * s.tokens; }
    [[nodiscard]] double fractional(std::size_t from, double weight) const;
  };

  double relaxation(double m);
  double best_mixture();
  void order_small(Mixture& mixture);
  void tabulate();
  double relax(Choice& choice);
  void add_cut(double per_second, double per_token);
  void take(State& state, std::size_t entry, std::int32_t times);
  [[nodiscard]] double rest(std::size_t from, const State& state) const;
  void best_first(std::int64_t limit);
  void complete(const Choice& choice);
  bool depth_first(const Mixture& mixture, State state, std::int64_t limit, double ceiling);
  void record(double gain);

  double T_ = 0.0, S_ = 0.0, m_ = 0.5;
  std::vector<Entry> entries_;  // worth taking and fitting alone, in the order of the branching
  std::size_t large_ = 0;  // entries that are branched on first
  Mixture main_;  // at the best m, over all entries in their order
  Mixture small_;  // over the small entries, at the m of the choice at hand
  Table table_;
  std::vector<Cut> cuts_;
  std::size_t cut_count_ = 0, oldest_ = 1;  // of cuts_, which keep their memory
  KnapsackRelaxation relaxation_;  // of a choice
  std::vector<std::int32_t> taken_;  // [entries]
  std::vector<std::pair<double, std::int32_t>> densities_;  // scratch of order_small()
  std::vector<Fill> fills_;
  std::vector<Choice> choices_;
  std::vector<std::pair<double, std::int32_t>> heap_;  // open choices, the highest bound first
  double profit_ = 0.0, best_ = 0.0, open_ = 0.0, upper_bound_ = 0.0;  // open_: what branches given up could gain
  std::int64_t work_ = 0;
};

}  // namespace hetsp::packing
