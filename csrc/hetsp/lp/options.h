// How exact, how long, and how it ended.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <string_view>

namespace hetsp::lp {

enum class Status {
  optimal,     // within the tolerances, for the bounds and costs as given
  infeasible,  // ray() holds multipliers of the rows that prove it
  unbounded,   // primal() is feasible and ray() a direction of falling cost
  work_limit,  // the limit was reached or the flag set; solve() again goes on from there
  numerical,   // no basis passes the tolerances: the matrix is too ill-conditioned for double precision
};

constexpr std::string_view name_of(Status status) {
  constexpr std::string_view names[] = {"optimal", "infeasible", "unbounded", "work_limit", "numerical"};
  return names[static_cast<int>(status)];
}

struct Options {
  double primal_tolerance = 1e-9;  // a value may lie outside a bound by this times max(1, |bound|)
  double dual_tolerance = 1e-9;    // a reduced cost may have the wrong sign by this times max(1, |cost|)
  std::int64_t work_limit = std::numeric_limits<std::int64_t>::max();  // of one solve(), in entries visited
  const std::atomic<bool>* cancel = nullptr;                            // set by another thread to stop early
};

}  // namespace hetsp::lp
