#pragma once

namespace hetsp {

// Least integer >= a / b, for a >= 0 and b > 0.
template <class Integer>
constexpr Integer ceil_div(Integer a, Integer b) {
  return a / b + (a % b != 0);
}

}  // namespace hetsp
