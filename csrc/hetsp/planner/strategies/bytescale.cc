#include "hetsp/planner/strategies/bytescale.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>
#include <set>

#include "hetsp/base/error.h"
#include "hetsp/planner/offload.h"

namespace hetsp::planner {

namespace {

constexpr double kDelta = 0.05;  // of the most loaded rank's time

struct Unit {
  DraftGroup group;
  std::int64_t tokens = 0;
  double seconds = 0.0;  // on each of its ranks
};

// The ratio and ranks of a sequence longer than a rank's room, ranks rounded up to an allowed degree.
DraftGroup spread(const Task& task, int s) {
  const Sequence& sequence = task.sequences[s];
  const HostMemory& host = task.cluster.host;
  Offload offload;
  if (host.layers > 2 && host.tokens_per_second > 0.0)
    offload = choose_offload(layer_of(sequence, task.cost, host, task.cluster.tokens_per_rank));
  const auto kept = static_cast<double>(sequence.tokens) * (1.0 - offload.ratio * host.offloadable());
  const int degree = task.modes.least_degree(static_cast<std::int64_t>(std::ceil(kept - 1e-6)));
  invariant(degree > 0, "sequence ", s, " of ", sequence.tokens, " tokens fits no group");
  return {.kind = degree == 1 ? Kind::whole : Kind::ring, .degree = degree, .sequences = {s}, .offload_ratio = offload.ratio};
}

std::vector<Unit> make_units(const Task& task, const std::vector<int>& order) {
  std::vector<int> shorter;
  std::vector<Unit> units;
  for (const int s : order) {
    if (task.sequences[s].tokens > task.cluster.tokens_per_rank)
      units.push_back({.group = spread(task, s)});
    else
      shorter.push_back(s);
  }
  for (auto& pack : best_fit(task.sequences, shorter, task.cluster.tokens_per_rank))
    units.push_back({.group = {.sequences = std::move(pack)}});
  for (Unit& unit : units) {
    for (const int s : unit.group.sequences) unit.tokens += task.sequences[s].tokens;
    unit.seconds = group_seconds(task, unit.group);
  }
  return units;
}

// Buckets of neighbours with about equal work, as many as there are degrees.
std::vector<std::deque<Unit>> make_buckets(std::vector<Unit> units) {
  std::set<int> degrees;
  double total = 0.0, sum = 0.0;
  for (const Unit& unit : units) degrees.insert(unit.group.degree), total += unit.seconds * unit.group.degree;
  const auto count = static_cast<double>(degrees.size());
  std::vector<std::deque<Unit>> buckets;
  for (Unit& unit : units) {
    if (buckets.empty() || sum >= total * static_cast<double>(buckets.size()) / count) buckets.emplace_back();
    sum += unit.seconds * unit.group.degree;
    buckets.back().push_back(std::move(unit));
  }
  return buckets;
}

// Loads of the ranks, and the units put on them in order.
class Ranks {
 public:
  explicit Ranks(int count) : load_(count, 0.0) {}

  // The ranks that are behind, least loaded first; all where none is.
  [[nodiscard]] std::vector<std::int32_t> behind() const {
    const double most = *std::max_element(load_.begin(), load_.end());
    std::vector<std::int32_t> ranks;
    for (std::size_t r = 0; r < load_.size(); ++r)
      if (most - load_[r] > kDelta * most) ranks.push_back(static_cast<std::int32_t>(r));
    return ranks.empty() ? all() : by_load(std::move(ranks));
  }
  [[nodiscard]] std::vector<std::int32_t> all() const {
    std::vector<std::int32_t> ranks(load_.size());
    std::iota(ranks.begin(), ranks.end(), 0);
    return by_load(std::move(ranks));
  }
  void put(Unit unit, std::vector<std::int32_t> ranks) {
    std::sort(ranks.begin(), ranks.end());
    for (const auto rank : ranks) load_[rank] += unit.seconds;
    unit.group.ranks = std::move(ranks);
    groups_.push_back(std::move(unit.group));
  }
  [[nodiscard]] Draft draft() && {
    Draft draft;
    draft.micro_batches.push_back(std::move(groups_));
    return draft;
  }

 private:
  [[nodiscard]] std::vector<std::int32_t> by_load(std::vector<std::int32_t> ranks) const {
    std::stable_sort(ranks.begin(), ranks.end(), [&](auto a, auto b) { return load_[a] < load_[b]; });
    return ranks;
  }
  std::vector<double> load_;
  std::vector<DraftGroup> groups_;
};

Draft balanced(const Task& task, bool buckets_in_turn) {
  auto units = make_units(task, by_falling_tokens(task.sequences));
  std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.tokens > b.tokens; });
  auto buckets = make_buckets(std::move(units));
  Ranks ranks(task.cluster.ranks);
  std::size_t turn = 0;
  while (!buckets.empty()) {
    auto targets = ranks.behind();
    // A unit that needs more ranks than are behind waits for no one: it takes the least loaded of all.
    if (targets.size() < static_cast<std::size_t>(buckets[turn % buckets.size()].front().group.degree)) targets = ranks.all();
    std::size_t next = 0;
    while (!buckets.empty()) {
      if (!buckets_in_turn) turn = 0;
      turn %= buckets.size();
      auto& bucket = buckets[turn];
      const auto degree = static_cast<std::size_t>(bucket.front().group.degree);
      if (next + degree > targets.size()) break;
      const auto first = targets.begin() + static_cast<std::ptrdiff_t>(next);
      ranks.put(std::move(bucket.front()), {first, first + static_cast<std::ptrdiff_t>(degree)});
      next += degree;
      bucket.pop_front();
      const bool used_up = bucket.empty();
      if (used_up) buckets.erase(buckets.begin() + static_cast<std::ptrdiff_t>(turn));
      if (buckets_in_turn) turn += !used_up;
      if (used_up && !buckets_in_turn) break;  // one level at a time
    }
    if (buckets.empty()) break;
  }
  return std::move(ranks).draft();
}

}  // namespace

Draft draft_bytescale_naive(const Task& task) {
  std::vector<int> order(task.sequences.size());
  std::iota(order.begin(), order.end(), 0);
  auto units = make_units(task, order);
  std::stable_sort(units.begin(), units.end(),
                   [](const Unit& a, const Unit& b) { return a.group.sequences.front() < b.group.sequences.front(); });
  Ranks ranks(task.cluster.ranks);
  std::int32_t next = 0;
  for (Unit& unit : units) {
    if (next + unit.group.degree > task.cluster.ranks) next = 0;
    std::vector<std::int32_t> members(unit.group.degree);
    std::iota(members.begin(), members.end(), next);
    next += unit.group.degree;
    ranks.put(std::move(unit), std::move(members));
  }
  return std::move(ranks).draft();
}

Draft draft_bytescale_dp(const Task& task) { return balanced(task, false); }

Draft draft_bytescale_pp(const Task& task) { return balanced(task, true); }

}  // namespace hetsp::planner
