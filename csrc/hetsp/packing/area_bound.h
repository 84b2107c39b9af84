// The area bound: what the items take of the ranks together, were every group full.
#pragma once

#include <vector>

#include "hetsp/packing/instance.h"
#include "hetsp/packing/item_types.h"

namespace hetsp::packing {

// For a makespan T, an item can run in the modes that hold it (tokens <= room) and end by T (t <= T). In the cheapest of
// those it takes ranks * t rank-seconds. T is refuted where some item has no such mode, or where the sum over all items is
// more than the N T rank-seconds that there are. (2.2 of FlexSP's reformulation as bin packing; the sum never rises with T.)
class AreaBound {
 public:
  AreaBound(const Instance& instance, const ItemTypes& types);

  // The items' rank-seconds where none may take longer than T; infinity where some item has no mode.
  [[nodiscard]] double area(double T) const;

  [[nodiscard]] bool refutes(double T) const { return area(T) > ranks_ * T; }

  // The least T that is not refuted, rounded down by a relative 1e-9; infinity where no T is.
  [[nodiscard]] double makespan() const;

  // The least seconds in which some mode runs type `i`; infinity where none holds it.
  [[nodiscard]] double shortest(int type) const { return shortest_[type]; }

 private:
  struct Option {
    double seconds, area;
  };
  double ranks_;
  std::vector<std::vector<Option>> options_;  // [types], rising area and falling seconds: the modes worth having
  std::vector<double> count_, shortest_;      // [types]
};

}  // namespace hetsp::packing
