// The strategy `auto`: how many micro-batches, and which sequences in which, around the search of balance.h.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "hetsp/base/error.h"
#include "hetsp/planner/balance.h"
#include "hetsp/planner/bounds.h"
#include "hetsp/planner/strategies.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr double kFull = 0.95;   // memory this full leaves so little choice that one micro-batch more is tried, too;
constexpr double kHalf = 0.5;    // from here on only where the makespan is far from the bound,
constexpr double kFar = 1.05;    // this far
constexpr std::int64_t kWork = 300'000;  // visits of a rank, about 5 ms on a core of 2020
constexpr double kWorth = 0.99;   // of the makespan: what another micro-batch must bring at least

struct Candidate {
  Assignment places;
  double makespan = std::numeric_limits<double>::infinity();  // of the step
};

// Loads add up over micro-batches (Synchronisation::step): one search over all of them.
std::optional<Candidate> shared(const Problem& problem, int micro_batches, const Budget& budget) {
  std::vector<int> all(problem.sequences.size());
  std::iota(all.begin(), all.end(), 0);
  const double fixed = problem.cost.micro_batch_seconds * micro_batches;
  auto balanced = balance(problem, all, micro_batches, std::max(0.0, problem.lower_bound - fixed), budget);
  if (!balanced) return std::nullopt;
  return Candidate{std::move(balanced->places), balanced->makespan + fixed};
}

// Ranks wait after each micro-batch: neighbours by length share one (the cut of FlexSP, arXiv 2412.01523, section 4), so
// that none of them waits for a sequence much longer than its own; each is balanced by itself.
std::optional<Candidate> separate(const Problem& problem, int micro_batches, std::int64_t work_limit) {
  const auto order = longest_first(problem.sequences, problem.cost);
  const double share = static_cast<double>(total_tokens(problem.sequences)) / micro_batches;
  Candidate candidate{Assignment(problem.sequences.size()), 0.0};
  std::size_t next = 0;
  double tokens = 0.0;
  for (int m = 0; m < micro_batches && next < order.size(); ++m) {
    std::vector<int> which;
    std::vector<Sequence> chosen;
    while (next < order.size() && (m + 1 == micro_batches || which.empty() || tokens < share * (m + 1) - 0.5)) {
      const Sequence& sequence = problem.sequences[order[next]];
      // To the side of the cut where more of it lies.
      if (m + 1 < micro_batches && !which.empty() && tokens + 0.5 * static_cast<double>(sequence.tokens) > share * (m + 1))
        break;
      which.push_back(order[next++]);
      chosen.push_back(sequence);
      tokens += static_cast<double>(sequence.tokens);
    }
    const double bound =
        lower_bound(chosen, problem.cluster, problem.cost, problem.max_degree) - problem.cost.micro_batch_seconds;
    auto balanced = balance(
        problem, which, 1, std::max(0.0, bound),
        Budget(problem.options.work_limit > 0 ? work_limit / micro_batches : std::max(work_limit / micro_batches, kWork),
               problem.options.time_limit / micro_batches));
    if (!balanced) return std::nullopt;
    candidate.makespan += balanced->makespan + problem.cost.micro_batch_seconds;
    for (std::size_t i = 0; i < which.size(); ++i) candidate.places[which[i]] = {m, std::move(balanced->places[i].ranks)};
  }
  return candidate;
}

}  // namespace

Assignment place_auto(const Problem& problem) {
  const auto count = static_cast<std::int64_t>(problem.sequences.size());
  const std::int64_t limit =
      problem.options.work_limit > 0 ? problem.options.work_limit : 500'000 + 4 * count * problem.cluster.ranks;
  const double room = static_cast<double>(problem.cluster.ranks) * static_cast<double>(problem.cluster.tokens_per_rank);
  const double needed = static_cast<double>(total_tokens(problem.sequences)) / room;
  const Budget budget(limit, problem.options.time_limit);
  const auto attempt = [&](int micro_batches) {
    return problem.options.synchronisation == Synchronisation::step ? shared(problem, micro_batches, budget)
                                                                    : separate(problem, micro_batches, limit);
  };
  int micro_batches = std::max(1, static_cast<int>(std::ceil(needed * (1.0 - 1e-15))));
  for (;; micro_batches += std::max(1, micro_batches / 8)) {
    auto first = attempt(micro_batches);
    if (!first) {
      // Each sequence fits alone, and where memory is at most half full, packing cannot fail: so this ends.
      invariant(micro_batches <= 2 * (count + static_cast<std::int64_t>(needed) + 1), "no room for ", count, " sequences in ",
                micro_batches, " micro-batches");
      continue;
    }
    const double fill = needed / micro_batches;
    if (fill > kFull || (fill > kHalf && first->makespan > kFar * problem.lower_bound))
      if (auto second = attempt(micro_batches + 1); second && second->makespan < kWorth * first->makespan)
        return std::move(second->places);
    return std::move(first->places);
  }
}

}  // namespace hetsp::planner
