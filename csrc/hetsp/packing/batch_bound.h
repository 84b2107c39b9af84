// The lower bound of a whole batch: whatever micro-batches its items are put into.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "hetsp/packing/effort.h"
#include "hetsp/packing/instance.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/level_programme.h"
#include "hetsp/packing/level_tree.h"
#include "hetsp/packing/pool_prices.h"

namespace hetsp::packing {

// What k micro-batches with makespans T_1, ..., T_k cost is sum (T_m + fixed). One of them is the host of the longest item,
// which takes a group of some mode there; the other items share what that group has left, the host's other ranks and the plain
// micro-batches. At any prices pi >= 0 of these items they fit only where
//
//   sum over plain m of N e(T_m) + (N - d) e'(T_host) + rest of the group >= sum_i pi_i n_i,
//
// e(T) being the most that one rank can earn by T. So with T cut into levels (T_{g-1}, T_g] and rows for some pi, no batch
// costs less than the LevelProgramme, which is enumerated for few micro-batches and a LevelTree for more. Its choice is shown
// to the PoolPrices: where that proves that such micro-batches cannot hold the items, its prices become a row (Benders, Numer.
// Math. 4, 1962); where it does not, levels are made finer.
//
// The host matters because a fluid would stand the longest item in several micro-batches in part.
class BatchBound {
 public:
  // micro_batches: at most so many, or 0. makespans: of the micro-batches of some plan, without the fixed seconds: its
  // proportions are where the first prices are looked for.
  BatchBound(const Instance& instance, double fixed_seconds, int micro_batches, std::vector<double> makespans);

  // Until the effort is spent, done(), or lower() (1 + gap) >= upper.
  void advance(Effort& effort, double upper, double gap);

  [[nodiscard]] double lower() const { return lower_; }  // seconds, fixed ones included
  [[nodiscard]] bool done() const { return done_; }

 private:
  // How the longest item may stand: in a group of one of these modes.
  struct Host {
    std::vector<std::int32_t> modes;
    double ranks = 0.0, seconds = 0.0;  // the least of the modes: of a group, of the longest item
  };
  [[nodiscard]] std::vector<Host> hosts() const;
  bool refine();
  bool refute(const LevelProgramme::Choice& choice, Effort& effort);
  bool follow_plan(double scale, Effort& effort);
  void try_few(Effort& effort);
  void try_many(Effort& effort);
  [[nodiscard]] std::vector<PoolPrices::Pool> pools(const LevelProgramme::Choice& choice) const;
  [[nodiscard]] LevelProgramme::Row row(const std::vector<double>& pi, Effort& effort) const;
  [[nodiscard]] double left(std::int32_t mode, double T) const;

  const Instance& instance_;
  double ranks_, fixed_, upper_;
  int fewest_ = 1, most_;      // micro-batches
  Item longest_;
  ItemTypes types_;            // of all items but the longest
  std::vector<Host> hosts_;
  std::unique_ptr<PoolPrices> pool_prices_;
  LevelProgramme programme_;
  std::unique_ptr<LevelTree> tree_;
  double area_ = 0.0;          // rank-seconds of all items where each takes its cheapest mode
  double ratio_ = 0.0;         // of the costs of neighbouring levels
  std::vector<double> level_;  // [levels] T_g
  std::vector<std::vector<double>> prices_;  // [rows][types] pi
  std::vector<LevelProgramme::Row> rows_;
  std::vector<double> shape_;  // makespans of a plan, by falling seconds
  double scale_below_ = 0.0, scale_above_ = 1.0;  // of shape_: refuted, not refuted
  double few_ = 0.0, many_ = 0.0;  // seconds that up to three, that more micro-batches cost at least
  double lower_ = 0.0;
  bool refined_ = false;  // the levels are too coarse for more
  bool done_ = false;
};

}  // namespace hetsp::packing
