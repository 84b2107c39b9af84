// A whole batch: micro-batches, their items and groups, and a certified lower bound over all ways to cut it.
#pragma once

#include <string_view>
#include <vector>

#include "hetsp/packing/instance.h"
#include "hetsp/packing/limits.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

struct CertifiedBatch {
  std::vector<Packing> micro_batches;
  double makespan = 0.0;       // seconds: sum over micro-batches of (makespan + fixed)
  double lower_bound = 0.0;    // seconds, of any cut into micro-batches
  double first_seconds = 0.0;  // on the clock, until the first plan was found
  std::string_view status;     // as of Certified
};

// BatchSearch and BatchBound on a thread each, in rounds as pack() has them. micro_batches: at most so many, or 0 to choose.
// Throws InvalidArgument as check(instance) does or for a negative argument, PlanInfeasible where an item fits into no group or
// no plan was found.
[[nodiscard]] CertifiedBatch pack_batch(const Instance& instance, double fixed_seconds, int micro_batches = 0,
                                        const Limits& limits = {});

}  // namespace hetsp::packing
