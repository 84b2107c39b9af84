#include "hetsp/packing/pack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "hetsp/base/error.h"
#include "hetsp/packing/bisection.h"
#include "hetsp/packing/rounds.h"
#include "hetsp/packing/search.h"
#include "hetsp/packing/subset_programme.h"

namespace hetsp::packing {

namespace {

constexpr std::int64_t kFirstRound = 100'000;    // some milliseconds
constexpr std::int64_t kSubsets = 20'000'000;    // visits of a pair of sets, enough for twelve items

std::int64_t default_work(const Instance& instance) {
  return 2'000'000 + 4'000 * std::min<std::int64_t>(std::ssize(instance.items), 2'000);
}

}  // namespace

void require_room(const Instance& instance, int micro_batches) {
  std::int64_t largest = 0, tokens = 0;
  double per_rank = 0.0;
  for (const Mode& mode : instance.modes) {
    largest = std::max(largest, mode.room);
    per_rank = std::max(per_rank, static_cast<double>(mode.room) / mode.ranks);
  }
  for (std::size_t i = 0; i < instance.items.size(); ++i) {
    tokens += instance.items[i].tokens;
    if (instance.items[i].tokens <= largest) continue;
    throw PlanInfeasible(
        concat("plan: sequence ", i, " has ", instance.items[i].tokens, " tokens; the largest group holds ", largest));
  }
  const double room = per_rank * instance.ranks * micro_batches;
  if (micro_batches > 0 && static_cast<double>(tokens) > room * (1.0 + 1e-12))
    throw PlanInfeasible(concat("plan: the sequences have ", tokens, " tokens; ", instance.ranks, " ranks hold at most ",
                                static_cast<std::int64_t>(room), " in ", micro_batches, " micro-batch",
                                micro_batches > 1 ? "es" : ""));
}

Certified pack(const Instance& given, const Limits& limits) {
  check(given);
  require_room(given);
  const Instance instance = with_whole_rooms(given);
  Rounds rounds(limits, default_work(instance), kFirstRound);
  Certified result;
  result.packing.makespan = std::numeric_limits<double>::infinity();
  const auto accept = [&](const std::optional<Packing>& packing) {
    if (!packing || packing->makespan >= result.packing.makespan) return;
    if (std::isinf(result.packing.makespan)) result.first_seconds = rounds.seconds();
    result.packing = *packing;
  };
  Search search(instance, limits.seed);
  accept(instance.items.empty() ? Packing{} : search.first());
  double proven = 0.0;
  if (!instance.items.empty() && instance.items.size() <= static_cast<std::size_t>(SubsetProgramme::kMost)) {
    SubsetProgramme programme(instance);
    Effort effort(limits.work > 0 ? limits.work : kSubsets, limits.seconds, limits.cancel);
    if (programme.solve(effort)) {
      proven = programme.makespan() * (1.0 - 1e-9);
      accept(programme.packing());
    }
  }
  Bisection bisection(instance);
  if (std::isfinite(result.packing.makespan)) bisection.offer(result.packing);
  const auto lower_bound = [&] { return std::max(proven, bisection.lower()); };
  const auto gap = [&] {
    return result.packing.makespan > lower_bound() ? result.packing.makespan / lower_bound() - 1.0 : 0.0;
  };
  const double target = std::max(limits.target_gap, kOptimalGap);
  while (gap() > target) {
    const double lower = lower_bound(), upper = result.packing.makespan;
    std::optional<Packing> dived;
    if (!rounds.run([&](Effort& effort) { search.improve(effort, lower * (1.0 + target)); },
                    [&](Effort& effort) { dived = bisection.advance(effort, upper, target); }))
      break;
    if (search.found()) accept(search.best());
    accept(dived);
    if (dived) search.offer(result.packing);
    if (result.packing.makespan < upper) bisection.offer(result.packing);
  }
  if (std::isinf(result.packing.makespan))
    throw PlanInfeasible(concat("plan: no packing of ", instance.items.size(), " sequences was found on ", instance.ranks,
                                " ranks; their memory may be too full"));
  result.lower_bound = std::min(lower_bound(), result.packing.makespan);
  result.status = status_of(gap(), limits.target_gap);
  check(given, result.packing);
  return result;
}

}  // namespace hetsp::packing
