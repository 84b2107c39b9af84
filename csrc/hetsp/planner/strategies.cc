#include "hetsp/planner/strategies.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "hetsp/base/error.h"
#include "hetsp/planner/cut.h"

namespace hetsp::planner {

std::vector<int> longest_first(std::span<const Sequence> sequences, const CostModel& cost) {
  std::vector<double> work;
  for (const auto& sequence : sequences) work.push_back(cost.compute_seconds(sequence));
  std::vector<int> order(sequences.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return std::tuple(work[a], sequences[a].tokens) > std::tuple(work[b], sequences[b].tokens);
  });
  return order;
}

Assignment place_static(const Problem& problem) {
  const auto& [sequences, cluster, cost, options, max_degree, bound] = problem;
  std::vector<std::int32_t> all(cluster.ranks);
  std::iota(all.begin(), all.end(), 0);
  std::vector<int> order(sequences.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sequences[a].tokens > sequences[b].tokens; });
  Assignment places(sequences.size());
  std::vector<std::int64_t> used;  // per micro-batch, an upper bound of what any rank holds
  for (const int s : order) {
    const std::int64_t held = most_tokens_held(sequences[s].tokens, cluster.ranks);
    const auto room =
        std::find_if(used.begin(), used.end(), [&](std::int64_t u) { return u + held <= cluster.tokens_per_rank; });
    places[s] = {static_cast<std::int32_t>(room - used.begin()), all};
    if (room == used.end())
      used.push_back(held);
    else
      *room += held;
  }
  return places;
}

Assignment place_data_parallel(const Problem& problem) {
  const auto& [sequences, cluster, cost, options, max_degree, bound] = problem;
  const bool once = options.synchronisation == Synchronisation::step;
  struct Rank {
    std::vector<std::int64_t> used;  // tokens per micro-batch
    double seconds = 0.0;
  };
  std::vector<Rank> ranks(cluster.ranks);
  Assignment places(sequences.size());
  std::vector<std::vector<double>> seconds;  // [micro-batch][rank], where ranks wait after each
  for (const int s : longest_first(sequences, cost)) {
    const std::int64_t tokens = sequences[s].tokens;
    const double time = cost.seconds(sequences[s], 1);
    std::size_t m = 0, chosen = 0;
    if (once) {
      for (std::size_t r = 1; r < ranks.size(); ++r)
        if (ranks[r].seconds < ranks[chosen].seconds) chosen = r;
      const auto& used = ranks[chosen].used;
      while (m < used.size() && used[m] + tokens > cluster.tokens_per_rank) ++m;
    } else {
      // First micro-batch in which some rank has room, there the least loaded of those.
      for (chosen = ranks.size(); chosen == ranks.size(); ++m) {
        if (m == seconds.size()) seconds.emplace_back(cluster.ranks);
        for (std::size_t r = 0; r < ranks.size(); ++r) {
          ranks[r].used.resize(std::max(ranks[r].used.size(), m + 1));
          if (ranks[r].used[m] + tokens > cluster.tokens_per_rank) continue;
          if (chosen == ranks.size() || seconds[m][r] < seconds[m][chosen]) chosen = r;
        }
      }
      --m;
      seconds[m][chosen] += time;
    }
    Rank& rank = ranks[chosen];
    rank.used.resize(std::max(rank.used.size(), m + 1));
    rank.used[m] += tokens;
    rank.seconds += time;
    places[s] = {static_cast<std::int32_t>(m), {static_cast<std::int32_t>(chosen)}};
  }
  return places;
}

}  // namespace hetsp::planner
