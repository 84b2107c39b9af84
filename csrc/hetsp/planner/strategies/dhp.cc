#include "hetsp/planner/strategies/dhp.h"

#include <algorithm>
#include <map>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

struct Atomic {
  std::vector<int> sequences;
  int least = 1;              // ranks by memory
  std::vector<double> seconds;  // [degrees from `first` on] T_i
  std::size_t first = 0;      // index of `least` in the list of degrees
};

// Stage 1. Empty where the groups need more ranks than there are.
std::vector<Atomic> atomic_groups(const Task& task, const std::vector<int>& chunk) {
  std::vector<Atomic> groups;
  std::multimap<std::int64_t, std::size_t> free;  // tokens left -> group
  std::int64_t ranks = 0;
  for (const int s : chunk) {  // by falling tokens
    const std::int64_t tokens = task.sequences[s].tokens;
    auto fit = free.lower_bound(tokens);
    std::size_t g = groups.size();
    std::int64_t left = 0;
    if (fit == free.end()) {
      groups.push_back({.sequences = {}, .least = task.modes.least_degree(tokens), .seconds = {}});
      ranks += groups.back().least;
      left = task.modes.room(groups.back().least);
    } else {
      g = fit->second, left = fit->first;
      free.erase(fit);
    }
    groups[g].sequences.push_back(s);
    free.emplace(left - tokens, g);
  }
  if (ranks > task.cluster.ranks) groups.clear();
  return groups;
}

void price(const Task& task, Atomic& group) {
  const auto& degrees = task.modes.degrees();
  group.first = std::lower_bound(degrees.begin(), degrees.end(), group.least) - degrees.begin();
  double pairs = 0.0, tokens = 0.0, fixed = 0.0;
  for (const int s : group.sequences) {
    pairs += static_cast<double>(task.sequences[s].visible_pairs), tokens += static_cast<double>(task.sequences[s].tokens);
    fixed += task.sequences[s].fixed_cost;
  }
  for (std::size_t i = group.first; i < degrees.size(); ++i) {
    const Rates& rates = require_mode(task, Kind::ring, degrees[i]).rates;
    group.seconds.push_back(rates.per_pair * pairs + rates.per_token * tokens + fixed +
                            rates.per_sequence * static_cast<double>(group.sequences.size()));
  }
}

// Stage 2 at one T: the fewest ranks of each group; false where some group never ends by T or the sum is too large.
bool ranks_for(const Task& task, const std::vector<Atomic>& groups, double T, std::vector<int>& ranks) {
  std::int64_t left = task.cluster.ranks;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const auto& seconds = groups[g].seconds;
    const auto fast = std::find_if(seconds.begin(), seconds.end(), [&](double t) { return t <= T; });
    if (fast == seconds.end()) return false;
    ranks[g] = task.modes.degrees()[groups[g].first + (fast - seconds.begin())];
    left -= ranks[g];
    if (left < 0) return false;
  }
  return true;
}

bool allot(const Task& task, const std::vector<int>& chunk, std::vector<DraftGroup>& result) {
  auto groups = atomic_groups(task, chunk);
  if (groups.empty()) return false;
  double high = 0.0;
  for (Atomic& group : groups) price(task, group), high = std::max(high, group.seconds.front());
  std::vector<int> ranks(groups.size()), best(groups.size());
  invariant(ranks_for(task, groups, high, best), "the least ranks of ", groups.size(), " groups are too many");
  for (double low = 0.0; high - low > 1e-9 * high;) {
    const double middle = 0.5 * (low + high);
    if (ranks_for(task, groups, middle, ranks))
      high = middle, best = ranks;
    else
      low = middle;
  }
  for (std::size_t g = 0; g < groups.size(); ++g)
    result.push_back(
        {.kind = best[g] == 1 ? Kind::whole : Kind::ring, .degree = best[g], .sequences = std::move(groups[g].sequences)});
  return true;
}

}  // namespace

Draft draft_dhp(const Task& task) {
  const auto order = by_falling_tokens(task.sequences);
  const int asked = task.options.micro_batches, least = least_micro_batches(task);
  const int most = asked > 0 ? asked : least + static_cast<int>(order.size());
  for (int count = least; count <= most; ++count) {
    Draft draft;
    bool fits = true;
    for (const auto& chunk : cut_into_chunks(task.sequences, order, count)) {
      fits = allot(task, chunk, draft.micro_batches.emplace_back());
      if (!fits) break;
    }
    if (fits) return draft;
  }
  if (asked == 0) {  // atomic groups may waste most of their memory: halves, down to single sequences, which do fit
    Draft draft;
    std::vector<std::vector<int>> left{order};
    while (!left.empty()) {
      auto chunk = std::move(left.back());
      left.pop_back();
      std::vector<DraftGroup> groups;
      if (allot(task, chunk, groups)) {
        draft.micro_batches.push_back(std::move(groups));
        continue;
      }
      const auto middle = chunk.begin() + static_cast<std::ptrdiff_t>(chunk.size() / 2);
      left.emplace_back(middle, chunk.end());
      left.emplace_back(chunk.begin(), middle);
    }
    return draft;
  }
  throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" finds no room for ", order.size(),
                              " sequences in ", most, " micro-batches of ", task.cluster.ranks, " ranks with room for ",
                              task.cluster.tokens_per_rank, " tokens each"));
}

}  // namespace hetsp::planner
