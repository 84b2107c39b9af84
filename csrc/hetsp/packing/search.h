// A good packing of one micro-batch at once, and better ones while effort is left. No bound is proven here.
//
//   first    greedy passes for rising targets; where nearly full memory defeats them, packing by memory alone
//   improve  bisection over greedy passes with drawn weights, then targets just below the best, reached by local search
//   (Refine)
//
// Deterministic for (instance, seed, effort in work units).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/order.h"
#include "hetsp/packing/passes.h"
#include "hetsp/packing/prices.h"
#include "hetsp/packing/refine.h"

namespace hetsp::packing {

class Search {
 public:
  // Throws InvalidArgument as check(instance) does.
  Search(const Instance& instance, std::uint64_t seed);

  // Quick where memory is not nearly full. Empty: none was found, which proves nothing.
  std::optional<Packing> first();
  // Works until the effort is spent or the best makespan is at most `stop_at` seconds. True if best() got better.
  bool improve(Effort& effort, double stop_at = 0.0);
  // The best so far; only after first() or offer() gave one.
  [[nodiscard]] const Packing& best() const;
  [[nodiscard]] bool found() const { return found_; }
  // A packing from elsewhere, taken over where it is better. Throws InvalidArgument as check(instance, packing) does.
  void offer(const Packing& packing);

 private:
  bool take(const Packing& packing);  // of order_.instance
  bool greedy_round(Effort& effort, double floor);
  bool refine_round(Effort& effort, double floor);
  // A target below the best that costs no more ranks than local search can hope to win back.
  double lower_target(double floor);
  void by_memory(Effort& effort);

  Order order_;
  Random random_;
  Passes passes_;
  Prices prices_;
  Refine refine_;
  std::vector<Packing> attempt_;
  double bound_ = 0.0;  // seconds: an estimate, where targets start
  bool found_ = false, fresh_ = false;  // fresh_: refine_ has not seen best_
  Packing best_, best_original_;
  Need need_;  // scratch of lower_target
  int greedy_rounds_ = 0;
  Greedy::Weights weights_;  // of the best greedy round
  double cut_ = 0.02;       // of the makespan: how far below the best the next target lies
  std::int64_t steps_ = 0;  // of the next refine_round
};

}  // namespace hetsp::packing
