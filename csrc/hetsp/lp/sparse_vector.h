// A vector kept dense, with the list of its nonzeros: O(nonzeros) to clear and to walk.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace hetsp::lp {

struct SparseVector {
  std::vector<double> value;        // [size]
  std::vector<std::int32_t> index;  // of what may be nonzero, each once

  // All zero, of that size.
  void reset(int size) {
    for (const std::int32_t i : index) value[i] = 0.0;
    index.clear();
    value.resize(static_cast<std::size_t>(size), 0.0);
  }
  void set(int i, double v) {
    value[i] = v;
    index.push_back(i);
  }
  // Lists the nonzeros of `value` after dense arithmetic; what is below `drop` becomes zero.
  void gather(double drop = 1e-14) {
    index.clear();
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (value[i] == 0.0) continue;
      if (std::abs(value[i]) < drop) {
        value[i] = 0.0;
      } else {
        index.push_back(static_cast<std::int32_t>(i));
      }
    }
  }
};

}  // namespace hetsp::lp
