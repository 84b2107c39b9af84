#include "hetsp/planner/strategies/homogeneous.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// Packs onto groups of one mode, in order, as many per micro-batch as there is space for.
Draft deal(const Task& task, const Modes::Mode& mode, std::vector<std::vector<int>> packs) {
  const std::size_t replicas = task.cluster.ranks / mode.degree;
  Draft draft;
  for (std::size_t i = 0; i < packs.size(); ++i) {
    if (i % replicas == 0) draft.micro_batches.emplace_back();
    draft.micro_batches.back().push_back({.kind = mode.kind, .degree = mode.degree, .sequences = std::move(packs[i])});
  }
  return draft;
}

// Best fit decreasing to `capacity` tokens; packs that take longest share a micro-batch.
Draft packed(const Task& task, const Modes::Mode& mode, std::int64_t capacity) {
  auto packs = best_fit(task.sequences, by_falling_tokens(task.sequences), capacity);
  std::vector<double> seconds;
  for (const auto& pack : packs) {
    double& sum = seconds.emplace_back(0.0);
    for (const int s : pack) sum += Modes::seconds(mode, task.sequences[s]);
  }
  std::vector<int> order(packs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return seconds[a] > seconds[b]; });
  std::vector<std::vector<int>> sorted;
  for (const int p : order) sorted.push_back(std::move(packs[p]));
  return deal(task, mode, std::move(sorted));
}

// The largest degree of that kind; null if there is none.
const Modes::Mode* largest_of(const Task& task, Kind kind) {
  const auto& degrees = task.modes.degrees();
  for (auto degree = degrees.rbegin(); degree != degrees.rend(); ++degree)
    if (const auto* mode = task.modes.find(kind, *degree)) return mode;
  return nullptr;
}

// One group over all ranks, or as many as a group may have.
Draft over_all(const Task& task, Kind kind) {
  const auto& mode = require_mode(task, kind, task.modes.max_degree());
  return packed(task, mode, task.modes.room(mode.degree));
}

constexpr bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

// The best of these degrees, each with its best count of micro-batches, balanced over the groups.
Draft best_of(const Task& task, const std::vector<int>& degrees) {
  constexpr Kind kKinds[] = {Kind::ulysses, Kind::ring, Kind::gather};
  Timed best;
  for (const int degree : degrees) {
    const auto* mode = task.modes.first_of(kKinds, degree);
    if (mode == nullptr || task.modes.room(degree) < longest(task.sequences)) continue;
    Timed made = best_count(task, [&](const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
      return balance_groups(task, *mode, chunk, task.cluster.ranks / degree, groups);
    });
    if (made.seconds < best.seconds) best = std::move(made);
  }
  if (best.draft.micro_batches.empty())
    throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" finds no degree at which ",
                                task.sequences.size(), " sequences, the longest of ", longest(task.sequences),
                                " tokens, fit into ", most_micro_batches(task), " micro-batches of ", task.cluster.ranks,
                                " ranks with room for ", task.cluster.tokens_per_rank, " tokens each"));
  return std::move(best.draft);
}

}  // namespace

Draft draft_static(const Task& task) {
  const Modes::Mode* mode = largest_of(task, Kind::ulysses);
  if (mode == nullptr || task.modes.room(mode->degree) < longest(task.sequences))
    mode = &require_mode(task, Kind::ring, task.modes.max_degree());
  const std::int64_t room = task.modes.room(mode->degree);
  return packed(task, *mode, task.options.micro_batches > 0 ? room : room / 10 * 9 + room % 10 * 9 / 10);
}

Draft draft_adaptive(const Task& task) {
  std::vector<int> degrees;
  for (const int degree : task.modes.degrees())
    if (is_power_of_two(degree) || degree == task.cluster.ranks) degrees.push_back(degree);
  return best_of(task, degrees);
}

Draft draft_data_parallel(const Task& task) { return best_of(task, {1}); }

Draft draft_te_cp(const Task& task) { return over_all(task, Kind::ring); }

Draft draft_llama_cp(const Task& task) { return over_all(task, Kind::gather); }

Draft draft_megatron_static(const Task& task) {
  const auto& mode = require_mode(task, Kind::ring, power_of_two_degree(task, longest(task.sequences)));
  std::vector<int> order(task.sequences.size());
  std::iota(order.begin(), order.end(), 0);
  return deal(task, mode, best_fit(task.sequences, order, task.modes.room(mode.degree)));
}

}  // namespace hetsp::planner
