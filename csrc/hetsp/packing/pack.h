// One micro-batch: a packing and a certified lower bound, both better the longer it runs.
#pragma once

#include <string_view>

#include "hetsp/packing/instance.h"
#include "hetsp/packing/limits.h"
#include "hetsp/packing/packing.h"

namespace hetsp::packing {

struct Certified {
  Packing packing;
  double lower_bound = 0.0;    // seconds; no packing of the instance is shorter
  double first_seconds = 0.0;  // on the clock, until the first packing was found
  std::string_view status;     // "optimal": the gap is at most 1e-6; "target": at most target_gap; "limit"
};

// Search (search.h) and proof (bisection.h) on a thread each, in rounds of growing work after which they tell each other what
// they found. A round's work is counted, not timed, so that equal arguments give equal answers unless `seconds` or `cancel`
// cuts. A first packing is always sought. Throws InvalidArgument as check(instance) does, PlanInfeasible where an item fits
// into no group, where all items together are more than the ranks hold, or where no packing was found.
[[nodiscard]] Certified pack(const Instance& instance, const Limits& limits = {});

// The PlanInfeasible facts of pack(): each item alone, and all together in at most so many micro-batches (0: any number).
void require_room(const Instance& instance, int micro_batches = 1);

}  // namespace hetsp::packing
