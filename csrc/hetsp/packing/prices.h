// What time and room are worth in each mode, for a fixed target T: the dual of packing with fractions. Per rank of mode m one
// unit of time (T seconds) and one of room (its tokens) are for sale together; priced at p and 1 - p, an item costs
//
//   c_m(item) = ranks_m ( p_m t_m(item) / T  +  (1 - p_m) tokens / room_m )     ranks,
//
// and no packing by T takes fewer ranks than sum_i min_m c_m(i), whatever p in [0, 1] is. The p that make this sum largest are
// found by subgradients: p_m rises where more time than room is taken. They tell a greedy pass which of the two is scarce.
// Here the sum is an estimate: items of neighbouring size are taken together, and not all modes are tried.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/need.h"

namespace hetsp::packing {

class Prices {
 public:
  // `instance`, its items by falling size, must outlive this.
  explicit Prices(const Instance& instance);

  // Moves time_share towards the best prices for `need` and its target. Returns the largest sum seen, in ranks; infinite where
  // an item fits nowhere.
  double descend(const Need& need, int rounds);
  // About the least T by which fractions of the items can be packed on so many ranks, with the prices that belong to it. 0
  // where items take no time; infinite where one fits nowhere.
  double rough_target(std::int64_t ranks);
  [[nodiscard]] const std::vector<double>& time_share() const { return time_share_; }  // [mode]: p

 private:
  struct Stratum {
    Item mean;
    double count;
  };
  double round(const Need& need, double step);

  const Instance* instance_;
  std::vector<Stratum> strata_;
  std::vector<double> time_share_, time_taken_, room_taken_;  // [mode]
};

}  // namespace hetsp::packing
