#include "hetsp/packing/pack_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "hetsp/base/error.h"
#include "hetsp/packing/batch_bound.h"
#include "hetsp/packing/batch_search.h"
#include "hetsp/packing/pack.h"
#include "hetsp/packing/rounds.h"

namespace hetsp::packing {

namespace {

// A step of BatchBound is an LP and its pricing at all levels. Where the clock ends the last round, one is enough: each cut
// costs the step under way, and the plan needs nothing from the bound.
constexpr std::int64_t kFirstRound = 1'000'000, kOneRound = std::int64_t{1} << 40;

std::int64_t default_work(const Instance& instance) {
  return 2'000'000 + 10'000 * std::min<std::int64_t>(std::ssize(instance.items), 2'000);
}

}  // namespace

CertifiedBatch pack_batch(const Instance& instance, double fixed_seconds, int micro_batches, const Limits& limits) {
  require(std::isfinite(fixed_seconds) && fixed_seconds >= 0.0, "packing: fixed_seconds is ", fixed_seconds,
          ", must be finite and at least 0");
  require(micro_batches >= 0, "packing: micro_batches is ", micro_batches, ", must be at least 0");
  check(instance);
  require_room(instance, micro_batches);
  CertifiedBatch result;
  if (instance.items.empty()) {
    result.status = "optimal";
    return result;
  }
  Rounds rounds(limits, default_work(instance), limits.seconds > 0.0 && limits.work == 0 ? kOneRound : kFirstRound);
  BatchSearch search(instance, fixed_seconds, micro_batches, limits.seed);
  search.first();
  result.first_seconds = rounds.seconds();
  const auto upper = [&] { return search.found() ? search.seconds() : std::numeric_limits<double>::infinity(); };
  const double target = std::max(limits.target_gap, kOptimalGap);
  std::optional<BatchBound> bound;
  for (;;) {
    if (search.found() && !bound) {
      std::vector<double> makespans;
      for (const Packing& packing : search.best()) makespans.push_back(packing.makespan);
      bound.emplace(instance, fixed_seconds, micro_batches, makespans);
      result.first_seconds = std::min(result.first_seconds, rounds.seconds());
    }
    if (bound && upper() <= bound->lower() * (1.0 + target)) break;
    const double stop_at = bound ? bound->lower() * (1.0 + target) : 0.0, present = upper();
    if (!rounds.run([&](Effort& effort) { search.improve(effort, stop_at); },
                    [&](Effort& effort) {
                      if (bound) bound->advance(effort, present, target);
                    }))
      break;
    if (!search.found()) result.first_seconds = rounds.seconds();
  }
  if (!search.found())
    throw PlanInfeasible(concat("plan: no packing of ", instance.items.size(), " sequences was found on ", instance.ranks,
                                " ranks", micro_batches > 0 ? concat(" in ", micro_batches, " micro-batches") : "",
                                "; their memory may be too full"));
  result.micro_batches = search.best();
  result.makespan = search.seconds();
  result.lower_bound = std::min(bound->lower(), result.makespan);
  result.status = status_of(result.makespan / result.lower_bound - 1.0, limits.target_gap);
  return result;
}

}  // namespace hetsp::packing
