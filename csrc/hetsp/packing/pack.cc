#include "hetsp/packing/pack.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <limits>
#include <thread>

#include "hetsp/base/error.h"
#include "hetsp/packing/bisection.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/search.h"

namespace hetsp::packing {

namespace {

constexpr double kOptimal = 1e-6;           // a gap that is none
constexpr std::int64_t kFirstRound = 100'000;  // visits of each thread, some milliseconds; rounds double
constexpr std::int64_t kLastRound = 6'400'000;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::int64_t default_work(const Instance& instance) {
  return 2'000'000 + 4'000 * static_cast<std::int64_t>(instance.items.size());
}

}  // namespace

void require_room(const Instance& instance) {
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
  if (static_cast<double>(tokens) > per_rank * instance.ranks * (1.0 + 1e-12))
    throw PlanInfeasible(concat("plan: the sequences have ", tokens, " tokens; ", instance.ranks, " ranks hold at most ",
                                static_cast<std::int64_t>(per_rank * instance.ranks), " in one micro-batch"));
}

Certified pack(const Instance& instance, const Limits& limits) {
  const auto start = std::chrono::steady_clock::now();
  check(instance);
  require_room(instance);
  Certified result;
  if (instance.items.empty()) {
    result.status = "optimal";
    return result;
  }
  std::int64_t work = limits.work > 0        ? limits.work
                      : limits.seconds > 0.0 ? std::numeric_limits<std::int64_t>::max()
                                             : default_work(instance);
  Search search(instance, limits.seed);
  const auto first = search.first();
  Bisection bisection(instance);
  result.lower_bound = bisection.lower();
  if (first) {
    result.packing = *first, result.first_seconds = seconds_since(start);
  } else {
    result.packing.makespan = std::numeric_limits<double>::infinity();
  }
  const auto gap = [&] { return result.lower_bound > 0.0 ? result.packing.makespan / result.lower_bound - 1.0 : 0.0; };
  const auto accept = [&](const Packing& packing) {
    if (result.packing.bins.empty()) result.first_seconds = seconds_since(start);
    result.packing = packing;
  };
  const double target = std::max(limits.target_gap, kOptimal);
  for (std::int64_t round = kFirstRound; work > 0 && gap() > target; round = std::min(2 * round, kLastRound)) {
    const double left = limits.seconds > 0.0 ? limits.seconds - seconds_since(start) : 0.0;
    if (limits.seconds > 0.0 && left <= 0.0) break;
    if (limits.cancel != nullptr && limits.cancel->load()) break;
    round = std::min(round, std::max<std::int64_t>(work / 2, 1));
    Effort search_effort(round, left, limits.cancel), proof_effort(round, left, limits.cancel);
    const double stop_at = result.lower_bound * (1.0 + target), upper = result.packing.makespan;
    std::exception_ptr failure;
    bool better = false;
    std::thread searching([&] {
      try {
        better = search.improve(search_effort, stop_at);
      } catch (...) {
        failure = std::current_exception();
      }
    });
    std::optional<Packing> dived;
    try {
      dived = bisection.advance(proof_effort, upper, target);
    } catch (...) {
      searching.join();
      throw;
    }
    searching.join();
    if (failure) std::rethrow_exception(failure);
    if (better && search.best().makespan < result.packing.makespan) accept(search.best());
    if (dived && dived->makespan < result.packing.makespan) accept(*dived);
    if (!result.packing.bins.empty()) search.offer(result.packing);
    result.lower_bound = std::max(result.lower_bound, bisection.lower());
    work -= 2 * round;
  }
  if (result.packing.bins.empty())
    throw PlanInfeasible(concat("plan: no packing of ", instance.items.size(), " sequences was found on ", instance.ranks,
                                " ranks; their memory may be too full"));
  result.lower_bound = std::min(result.lower_bound, result.packing.makespan);
  result.status = gap() <= kOptimal ? "optimal" : gap() <= limits.target_gap ? "target" : "limit";
  check(instance, result.packing);
  return result;
}

}  // namespace hetsp::packing
