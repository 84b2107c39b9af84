#include "hetsp/planner/strategies/task.h"

#include <algorithm>
#include <numeric>
#include <queue>
#include <set>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

std::vector<int> by_falling_tokens(std::span<const Sequence> sequences) {
  std::vector<int> order(sequences.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sequences[a].tokens > sequences[b].tokens; });
  return order;
}

std::int64_t longest(std::span<const Sequence> sequences) {
  std::int64_t most = 0;
  for (const auto& sequence : sequences) most = std::max(most, sequence.tokens);
  return most;
}

std::vector<std::vector<int>> best_fit(std::span<const Sequence> sequences, const std::vector<int>& order,
                                       std::int64_t capacity) {
  std::vector<std::vector<int>> bins;
  std::set<std::pair<std::int64_t, std::size_t>> free;  // (tokens left, bin): of equals the first opened
  for (const int s : order) {
    const std::int64_t tokens = sequences[s].tokens;
    const auto bin = free.lower_bound({tokens, 0});
    std::size_t index = bins.size();
    std::int64_t left = capacity;
    if (bin == free.end()) {
      bins.emplace_back();
    } else {
      left = bin->first, index = bin->second;
      free.erase(bin);
    }
    bins[index].push_back(s);
    if (left >= tokens) free.emplace(left - tokens, index);
  }
  return bins;
}

std::vector<std::vector<int>> cut_into_chunks(std::span<const Sequence> sequences, const std::vector<int>& order, int count) {
  std::vector<std::int64_t> sums{0};
  for (const int s : order) sums.push_back(sums.back() + sequences[s].tokens);
  // The end of the longest run from `begin` on that holds at most `most` tokens.
  const auto run = [&](std::size_t begin, std::int64_t most) {
    return static_cast<std::size_t>(std::upper_bound(sums.begin() + begin, sums.end(), sums[begin] + most) - sums.begin()) - 1;
  };
  const auto fits = [&](std::size_t end, std::size_t runs, std::int64_t most) {  // the first `end` sequences in so many runs
    std::size_t begin = 0;
    for (; runs > 0 && begin < end; --runs) begin = run(begin, most);
    return begin >= end;
  };
  std::int64_t single = longest(sequences);
  std::vector<std::vector<int>> chunks;
  std::size_t end = order.size();
  for (auto left = std::min<std::size_t>(count, end); left > 0; --left) {
    std::int64_t low = std::max(single, sums[end] / static_cast<std::int64_t>(left)), high = std::max(low, sums[end]);
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (fits(end, left, middle))
        high = middle;
      else
        low = middle + 1;
    }
    std::size_t begin = std::lower_bound(sums.begin(), sums.begin() + end, sums[end] - high) - sums.begin();
    begin = std::max(begin, left - 1);
    chunks.emplace_back(order.begin() + begin, order.begin() + end);
    end = begin;
  }
  std::reverse(chunks.begin(), chunks.end());
  return chunks;
}

Timed best_count(const Task& task,
                 const std::function<bool(const std::vector<int>& chunk, std::vector<DraftGroup>& groups)>& solve) {
  constexpr int kCounts = 5;
  const auto order = by_falling_tokens(task.sequences);
  const std::int64_t room = task.cluster.ranks * task.cluster.tokens_per_rank;
  const auto held = [&](const std::vector<int>& chunk) {
    std::int64_t tokens = 0;
    for (const int s : chunk) tokens += task.sequences[s].tokens;
    return tokens <= room;
  };
  const int asked = task.options.micro_batches, most = most_micro_batches(task);
  Timed best;
  int tried = 0;
  for (int count = asked > 0 ? asked : least_micro_batches(task); count <= most; ++count) {
    const auto chunks = cut_into_chunks(task.sequences, order, count);
    if (tried == 0 && !std::all_of(chunks.begin(), chunks.end(), held)) continue;
    Timed made{{}, 0.0};
    bool fits = true;
    for (const auto& chunk : chunks) {
      auto& groups = made.draft.micro_batches.emplace_back();
      fits = solve(chunk, groups);
      if (!fits) break;
      made.seconds += slowest_seconds(task, groups) + task.cost.micro_batch_seconds;
    }
    if (fits && made.seconds < best.seconds) best = std::move(made);
    if (++tried >= kCounts && !best.draft.micro_batches.empty()) break;
  }
  return best;
}

const Modes::Mode* sequence_parallel_mode(const Task& task, int degree) {
  constexpr Kind kKinds[] = {Kind::ulysses, Kind::ring, Kind::gather};
  return task.modes.first_of(kKinds, degree);
}

bool balance_groups(const Task& task, const Modes::Mode& mode, const std::vector<int>& which, int groups,
                    std::vector<DraftGroup>& result) {
  std::vector<double> time(task.sequences.size());
  for (const int s : which) time[s] = Modes::seconds(mode, task.sequences[s]);
  std::vector<int> order = which;
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return time[a] > time[b]; });
  using Load = std::pair<double, int>;
  std::priority_queue<Load, std::vector<Load>, std::greater<>> least;
  std::vector<std::int64_t> held(groups, 0);
  result.assign(groups, DraftGroup{.kind = mode.kind, .degree = mode.degree});
  for (int g = 0; g < groups; ++g) least.emplace(0.0, g);
  std::vector<Load> full;  // without room for the sequence at hand
  for (const int s : order) {
    full.clear();
    while (!least.empty() && held[least.top().second] + task.sequences[s].tokens > task.modes.room(mode.degree)) {
      full.push_back(least.top());
      least.pop();
    }
    if (least.empty()) return false;
    const auto [load, g] = least.top();
    least.pop();
    held[g] += task.sequences[s].tokens;
    result[g].sequences.push_back(s);
    least.emplace(load + time[s], g);
    for (const Load& other : full) least.push(other);
  }
  return true;
}

double group_seconds(const Task& task, const DraftGroup& group) {
  const Modes::Mode& mode = require_mode(task, group.kind, group.degree);
  double sum = 0.0;
  for (const int s : group.sequences) sum += Modes::seconds(mode, task.sequences[s]);
  return sum;
}

double slowest_seconds(const Task& task, const std::vector<DraftGroup>& groups) {
  double slowest = 0.0;
  for (const auto& group : groups) slowest = std::max(slowest, group_seconds(task, group));
  return slowest;
}

int least_micro_batches(const Task& task) {
  return std::max(1,
                  static_cast<int>(ceil_div(total_tokens(task.sequences), task.cluster.ranks * task.cluster.tokens_per_rank)));
}

int most_micro_batches(const Task& task) {
  const int asked = task.options.micro_batches;
  return asked > 0 ? asked : std::max(least_micro_batches(task), static_cast<int>(task.sequences.size()));
}

int power_of_two_degree(const Task& task, std::int64_t tokens) {
  for (const int degree : task.modes.degrees())
    if ((degree & (degree - 1)) == 0 && task.modes.room(degree) >= tokens) return degree;
  return task.modes.max_degree();
}

const Modes::Mode& require_mode(const Task& task, Kind kind, int degree) {
  const Modes::Mode* mode = task.modes.find(kind, degree);
  require(mode != nullptr, "plan: strategy \"", task.options.strategy, "\" needs a group of kind ", name_of(kind), " on ",
          degree, " ranks, which the executable kinds, the degrees or the model exclude");
  return *mode;
}

}  // namespace hetsp::planner
