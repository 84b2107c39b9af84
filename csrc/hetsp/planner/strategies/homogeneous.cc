#include "hetsp/planner/strategies/homogeneous.h"

#include <algorithm>
#include <numeric>

#include "hetsp/base/ceil_div.h"
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

std::int64_t tokens_of(const Task& task, const std::vector<int>& pack) {
  std::int64_t sum = 0;
  for (const int s : pack) sum += task.sequences[s].tokens;
  return sum;
}

// Groups without a pack, from `used` on, take a sequence each from the last pack that can spare one.
void fill_empty(std::vector<std::vector<int>>& packs, std::size_t used) {
  for (std::size_t empty = used; empty < packs.size(); ++empty) {
    std::size_t from = used;
    while (from > 0 && packs[from - 1].size() < 2) --from;
    if (from == 0) return;
    auto& pack = packs[from - 1];
    const auto first = std::min_element(pack.begin(), pack.end());
    packs[empty].push_back(*first);
    pack.erase(first);
  }
}

// Levels the tokens of the packs from `first` on, none above `capacity`.
void level(const Task& task, std::vector<std::vector<int>>& packs, std::size_t first, std::int64_t capacity) {
  std::vector<std::int64_t> tokens;
  for (std::size_t g = first; g < packs.size(); ++g) tokens.push_back(tokens_of(task, packs[g]));
  const std::int64_t mean =
      std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0}) / static_cast<std::int64_t>(tokens.size());
  for (std::size_t to = 1; to < tokens.size(); ++to) {
    if (tokens[to] > mean) continue;
    for (std::size_t from = 0; from < to; ++from) {
      auto& source = packs[first + from];
      std::sort(source.begin(), source.end());
      for (std::size_t i = 0; i < source.size() && source.size() > 1 && tokens[to] < mean && tokens[from] > mean;) {
        const std::int64_t moved = task.sequences[source[i]].tokens;
        if (tokens[to] + moved > capacity) {
          ++i;
          continue;
        }
        packs[first + to].push_back(source[i]);
        source.erase(source.begin() + static_cast<std::ptrdiff_t>(i));
        tokens[to] += moved, tokens[from] -= moved;
      }
    }
  }
}

// The release's plan of one degree; a group's whole room where the count of micro-batches is given.
Draft packed(const Task& task, const Modes::Mode& mode) {
  constexpr int kLevelled = 16;  // ranks
  const std::int64_t room = task.modes.room(mode.degree);
  const std::int64_t most =
      task.options.micro_batches > 0 ? room : std::max(longest(task.sequences), room / 10 * 9 + room % 10 * 9 / 10);
  auto packs = best_fit(task.sequences, by_falling_tokens(task.sequences), most);
  const std::size_t replicas = task.cluster.ranks / mode.degree, used = packs.size();
  packs.resize(ceil_div(used, replicas) * replicas);
  fill_empty(packs, used);
  if (mode.degree >= kLevelled && packs.size() > used) level(task, packs, packs.size() - replicas, most);
  return deal(task, mode, std::move(packs));
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
  return deal(task, mode, best_fit(task.sequences, by_falling_tokens(task.sequences), task.modes.room(mode.degree)));
}

constexpr bool is_power_of_two(int value) { return (value & (value - 1)) == 0; }

double seconds_of(const Task& task, const Draft& draft) {
  double sum = 0.0;
  for (const auto& groups : draft.micro_batches) sum += slowest_seconds(task, groups) + task.cost.micro_batch_seconds;
  return sum;
}

[[noreturn]] void throw_no_degree(const Task& task) {
  throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" finds no degree at which ", task.sequences.size(),
                              " sequences, the longest of ", longest(task.sequences), " tokens, fit into ",
                              most_micro_batches(task), " micro-batches of ", task.cluster.ranks, " ranks with room for ",
                              task.cluster.tokens_per_rank, " tokens each"));
}

}  // namespace

Draft draft_static(const Task& task) {
  const Modes::Mode* mode = largest_of(task, Kind::ulysses);
  if (mode == nullptr || task.modes.room(mode->degree) < longest(task.sequences))
    mode = &require_mode(task, Kind::ring, task.modes.max_degree());
  return packed(task, *mode);
}

Draft draft_adaptive(const Task& task) {
  Timed best;
  for (const int degree : task.modes.degrees()) {
    if (!is_power_of_two(degree) && degree != task.cluster.ranks) continue;
    const auto* mode = sequence_parallel_mode(task, degree);
    if (mode == nullptr || task.modes.room(degree) < longest(task.sequences)) continue;
    Timed made{packed(task, *mode), 0.0};
    if (std::ssize(made.draft.micro_batches) > most_micro_batches(task)) continue;
    made.seconds = seconds_of(task, made.draft);
    if (made.seconds < best.seconds) best = std::move(made);
  }
  if (best.draft.micro_batches.empty()) throw_no_degree(task);
  return std::move(best.draft);
}

Draft draft_data_parallel(const Task& task) {
  if (task.modes.room(1) < longest(task.sequences)) throw_no_degree(task);
  const auto& whole = require_mode(task, Kind::whole, 1);
  Timed best = best_count(task, [&](const std::vector<int>& chunk, std::vector<DraftGroup>& groups) {
    return balance_groups(task, whole, chunk, task.cluster.ranks, groups);
  });
  if (best.draft.micro_batches.empty()) throw_no_degree(task);
  return std::move(best.draft);
}

Draft draft_te_cp(const Task& task) { return over_all(task, Kind::ring); }

Draft draft_llama_cp(const Task& task) { return over_all(task, Kind::gather); }

Draft draft_megatron_static(const Task& task) {
  const auto& mode = require_mode(task, Kind::ring, power_of_two_degree(task, longest(task.sequences)));
  std::vector<int> order(task.sequences.size());
  std::iota(order.begin(), order.end(), 0);
  return deal(task, mode, best_fit(task.sequences, order, task.modes.room(mode.degree)));
}

}  // namespace hetsp::planner
