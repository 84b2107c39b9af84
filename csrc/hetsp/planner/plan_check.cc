#include "hetsp/planner/plan_check.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "hetsp/base/error.h"
#include "hetsp/planner/cut.h"
#include "hetsp/planner/modes.h"

namespace hetsp::planner {

namespace {

// The group's own fields; `taken` is all false before and after.
void check_group(const Group& group, const std::string& where, std::int32_t ranks, double offloadable,
                 std::vector<bool>& taken) {
  require(!group.sequences.empty(), where, " has no sequences");
  require(!group.ranks.empty(), where, " has no ranks");
  for (const Rank rank : group.ranks) {
    require(0 <= rank.value() && rank.value() < ranks, where, " names rank ", rank.value(), ", must be in 0..", ranks - 1);
    require(!taken[rank.value()], where, " names rank ", rank.value(), " twice");
    taken[rank.value()] = true;
  }
  for (const Rank rank : group.ranks) taken[rank.value()] = false;
  const auto degree = static_cast<std::int64_t>(group.ranks.size());
  const Strategy& strategy = group.strategy;
  require(strategy.head_degree >= 1 && strategy.ring_degree >= 1 &&
              std::int64_t{strategy.head_degree} * strategy.ring_degree == degree,
          where, " has ", degree, " ranks, but head_degree ", strategy.head_degree, " x ring_degree ", strategy.ring_degree);
  require(group.cut != Cut::whole || degree == 1, where, " leaves its sequences whole on ", degree,
          " ranks; a whole cut needs 1 rank");
  require(group.activations != Activations::recompute, where,
          " recomputes activations, which the memory of a plan does not count");
  require(group.activations == Activations::offload ? 0.0 < group.offload_ratio && group.offload_ratio <= 1.0
                                                    : group.offload_ratio == 0.0,
          where, " has an offload_ratio of ", group.offload_ratio, "; must be in (0, 1] with offloaded activations, else 0");
  require(group.activations == Activations::keep || (0.0 < offloadable && offloadable <= 1.0), where,
          " offloads activations, but the plan's offloadable share is ", offloadable, ", must be in (0, 1]");
}

bool is_ulysses(const Group& group) { return group.strategy.head_degree > 1 && group.strategy.ring_degree == 1; }

std::int64_t group_tokens(const Plan& plan, const Group& group) {
  std::int64_t sum = 0;
  for (const SequenceIndex sequence : group.sequences) sum += plan.sequences[sequence.value()].tokens;
  return sum;
}

// Tokens whose activations stay on the device, of `tokens` of that group.
std::int64_t kept_tokens(const Plan& plan, const Group& group, std::int64_t tokens) {
  if (group.activations != Activations::offload) return tokens;
  return static_cast<std::int64_t>(
      std::ceil(static_cast<double>(tokens) * (1.0 - group.offload_ratio * plan.offloadable) - 1e-9));
}

// Calls `visit(rank, tokens)` for each rank of the group. A Ulysses group cuts its packed sequences as one run: each rank
// holds an equal share of their sum; other groups cut each sequence by itself.
template <class Visit>
void for_tokens_held(const Plan& plan, const Group& group, const Visit& visit) {
  const int degree = static_cast<int>(group.ranks.size());
  if (is_ulysses(group)) {
    const std::int64_t sum = group_tokens(plan, group);
    for (int position = 0; position < degree; ++position)
      visit(group.ranks[position].value(), tokens_held(sum, Cut::contiguous, degree, position));
    return;
  }
  for (const SequenceIndex sequence : group.sequences)
    for (int position = 0; position < degree; ++position)
      visit(group.ranks[position].value(), tokens_held(plan.sequences[sequence.value()].tokens, group.cut, degree, position));
}

// Disjoint groups: each holds at most what its ranks hold together, and no rank serves two.
void check_exclusive(const Plan& plan, const MicroBatch& micro_batch, std::size_t index, const Cluster& cluster) {
  std::vector<std::int32_t> owner(plan.ranks, -1);
  for (std::size_t g = 0; g < micro_batch.groups.size(); ++g) {
    const Group& group = micro_batch.groups[g];
    for (const Rank rank : group.ranks) {
      require(owner[rank.value()] < 0, "plan: rank ", rank.value(), " serves groups ", owner[rank.value()], " and ", g,
              " of micro-batch ", index, ", but the plan is exclusive");
      owner[rank.value()] = static_cast<std::int32_t>(g);
    }
    const std::int64_t held = kept_tokens(plan, group, group_tokens(plan, group));
    const std::int64_t room = static_cast<std::int64_t>(group.ranks.size()) * cluster.tokens_per_rank;
    require(held <= room, "plan: group ", g, " of micro-batch ", index, " holds ", held, " tokens, its ", group.ranks.size(),
            " ranks have room for ", room);
  }
}

void check_shared(const Plan& plan, const MicroBatch& micro_batch, std::size_t index, const Cluster& cluster) {
  std::vector<std::int64_t> held(plan.ranks);
  for (const Group& group : micro_batch.groups)
    for_tokens_held(plan, group,
                    [&](std::int32_t rank, std::int64_t tokens) { held[rank] += kept_tokens(plan, group, tokens); });
  for (std::int32_t rank = 0; rank < plan.ranks; ++rank)
    require(held[rank] <= cluster.tokens_per_rank, "plan: rank ", rank, " holds ", held[rank], " tokens in micro-batch ", index,
            ", at most ", cluster.tokens_per_rank);
}

void check_placeholder(const Plan& plan, const MicroBatch& micro_batch, std::size_t index) {
  const auto& idle = micro_batch.placeholder.ranks;
  if (plan.synchronisation != Synchronisation::layer) {
    require(idle.empty(), "plan: micro-batch ", index, " has a placeholder of ", idle.size(),
            " ranks, but the plan does not synchronise in every layer");
    return;
  }
  std::vector<int> parts(plan.ranks);  // 1: in a group, 2: in the placeholder
  for (const Group& group : micro_batch.groups)
    for (const Rank rank : group.ranks) parts[rank.value()] = 1;
  for (const Rank rank : idle) {
    require(0 <= rank.value() && rank.value() < plan.ranks, "plan: the placeholder of micro-batch ", index, " names rank ",
            rank.value(), ", must be in 0..", plan.ranks - 1);
    require(parts[rank.value()] == 0, "plan: the placeholder of micro-batch ", index, " names rank ", rank.value(),
            parts[rank.value()] == 1 ? ", which has a group" : " twice");
    parts[rank.value()] = 2;
  }
  const auto missing = std::find(parts.begin(), parts.end(), 0) - parts.begin();
  require(missing == plan.ranks, "plan: rank ", missing, " has neither group nor placeholder in micro-batch ", index,
          ", but parameters are sharded (layer), so every rank takes part");
}

// The rates of a plan's groups, each computed once.
class GroupRates {
 public:
  GroupRates(const CostModel& cost, int ranks_per_node) : cost_(cost), ranks_per_node_(ranks_per_node) {}

  const Rates& operator()(const Group& group) {
    const int degree = static_cast<int>(group.ranks.size());
    const int nodes = nodes_of(group);
    const auto key = std::tuple(group.strategy.head_degree, group.strategy.ring_degree, group.strategy.gather_kv, nodes);
    const auto found = known_.find(key);
    if (found != known_.end()) return found->second;
    const auto rates = rates_of(cost_, group.strategy, degree, ranks_per_node_, nodes);
    require(rates.has_value(), "plan: a group of ", degree, " ranks with head_degree ", group.strategy.head_degree,
            " is more than the model of the cost model can run");
    return known_.emplace(key, *rates).first->second;
  }

 private:
  [[nodiscard]] int nodes_of(const Group& group) const {
    if (ranks_per_node_ == 0) return 1;
    std::vector<std::int32_t> nodes;
    for (const Rank rank : group.ranks) nodes.push_back(rank.value() / ranks_per_node_);
    std::sort(nodes.begin(), nodes.end());
    return static_cast<int>(std::unique(nodes.begin(), nodes.end()) - nodes.begin());
  }

  const CostModel& cost_;
  int ranks_per_node_;
  std::map<std::tuple<int, int, bool, int>, Rates> known_;
};

}  // namespace

void check(const Plan& plan, const Cluster& cluster) {
  require(plan.ranks == cluster.ranks, "plan: made for ", plan.ranks, " ranks, the cluster has ", cluster.ranks);
  const auto count = static_cast<std::int32_t>(plan.sequences.size());
  std::vector<int> seen(count);
  std::vector<bool> taken(plan.ranks);
  for (std::size_t m = 0; m < plan.micro_batches.size(); ++m) {
    for (std::size_t g = 0; g < plan.micro_batches[m].groups.size(); ++g) {
      const Group& group = plan.micro_batches[m].groups[g];
      const std::string where = concat("plan: group ", g, " of micro-batch ", m);
      check_group(group, where, plan.ranks, plan.offloadable, taken);
      for (const SequenceIndex sequence : group.sequences) {
        require(0 <= sequence.value() && sequence.value() < count, where, " names sequence ", sequence.value(),
                ", must be in 0..", count - 1);
        require(++seen[sequence.value()] == 1, where, " holds sequence ", sequence.value(),
                ", which another place of the plan holds, too");
      }
    }
    (plan.exclusive ? check_exclusive : check_shared)(plan, plan.micro_batches[m], m, cluster);
    check_placeholder(plan, plan.micro_batches[m], m);
  }
  for (std::int32_t sequence = 0; sequence < count; ++sequence)
    require(seen[sequence] == 1, "plan: sequence ", sequence, " of ", plan.sequences[sequence].tokens,
            " tokens is in no group");
}

std::vector<std::int64_t> rank_tokens(const Plan& plan, int micro_batch) {
  require(0 <= micro_batch && micro_batch < static_cast<int>(plan.micro_batches.size()), "plan: micro-batch ", micro_batch,
          ", there are ", plan.micro_batches.size());
  std::vector<std::int64_t> held(plan.ranks);
  for (const Group& group : plan.micro_batches[micro_batch].groups)
    for_tokens_held(plan, group, [&](std::int32_t rank, std::int64_t tokens) { held[rank] += tokens; });
  return held;
}

void predict(Plan& plan, const CostModel& cost, int ranks_per_node) {
  GroupRates rates_of_group(cost, ranks_per_node);
  const bool chained = is_chained(plan);
  const double fixed_of_all = chained ? 0.0 : cost.micro_batch_seconds;
  plan.rank_seconds.assign(plan.ranks, fixed_of_all * static_cast<double>(plan.micro_batches.size()));
  plan.compute_seconds.assign(plan.ranks, 0.0);
  double slowest_sum = 0.0;  // over micro-batches
  std::vector<double> seconds(plan.ranks), free_at(plan.ranks);
  for (MicroBatch& micro_batch : plan.micro_batches) {
    std::fill(seconds.begin(), seconds.end(), 0.0);
    for (const Group& group : micro_batch.groups) {
      const Rates& rates = rates_of_group(group);
      double pairs = 0.0, tokens = 0.0, fixed = 0.0;
      for (const SequenceIndex index : group.sequences) {
        const Sequence& sequence = plan.sequences[index.value()];
        pairs += static_cast<double>(sequence.visible_pairs), tokens += static_cast<double>(sequence.tokens);
        fixed += sequence.fixed_cost + rates.per_sequence;
      }
      const double compute = rates.compute_per_pair * pairs + rates.compute_per_token * tokens;
      const double total = rates.per_pair * pairs + rates.per_token * tokens + fixed;
      double begin = 0.0;
      for (const Rank rank : group.ranks) {
        seconds[rank.value()] += total, plan.compute_seconds[rank.value()] += compute;
        begin = std::max(begin, free_at[rank.value()]);
      }
      if (!chained) continue;
      for (const Rank rank : group.ranks) {
        free_at[rank.value()] = begin + total + cost.micro_batch_seconds;
        plan.rank_seconds[rank.value()] += cost.micro_batch_seconds;
      }
    }
    micro_batch.placeholder.seconds = micro_batch.placeholder.ranks.empty() ? 0.0 : cost.placeholder_seconds;
    for (const Rank rank : micro_batch.placeholder.ranks) seconds[rank.value()] += cost.placeholder_seconds;
    for (int rank = 0; rank < plan.ranks; ++rank) plan.rank_seconds[rank] += seconds[rank];
    micro_batch.makespan = cost.micro_batch_seconds + *std::max_element(seconds.begin(), seconds.end());
    slowest_sum += micro_batch.makespan;
  }
  const auto& of_ranks = chained ? free_at : plan.rank_seconds;
  plan.makespan =
      plan.synchronisation == Synchronisation::step ? *std::max_element(of_ranks.begin(), of_ranks.end()) : slowest_sum;
}

double balance(std::span<const double> rank_seconds) {
  const double sum = std::accumulate(rank_seconds.begin(), rank_seconds.end(), 0.0);
  if (sum <= 0.0) return 1.0;
  return *std::max_element(rank_seconds.begin(), rank_seconds.end()) * static_cast<double>(rank_seconds.size()) / sum;
}

}  // namespace hetsp::planner
