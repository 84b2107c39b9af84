#include "hetsp/planner/plan_check.h"

#include <algorithm>
#include <numeric>

#include "hetsp/base/error.h"
#include "hetsp/planner/cut.h"

namespace hetsp::planner {

namespace {

void check_group(const Group& group, const std::string& where, std::int32_t ranks, std::vector<bool>& taken) {
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
  require(group.activations == Activations::keep, where,
          " offloads or recomputes activations, which the memory of a plan does not count");
}

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
      check_group(group, where, plan.ranks, taken);
      for (const SequenceIndex sequence : group.sequences) {
        require(0 <= sequence.value() && sequence.value() < count, where, " names sequence ", sequence.value(),
                ", must be in 0..", count - 1);
        require(++seen[sequence.value()] == 1, where, " holds sequence ", sequence.value(),
                ", which another place of the plan holds, too");
      }
    }
    const auto held = rank_tokens(plan, static_cast<int>(m));
    for (std::int32_t rank = 0; rank < plan.ranks; ++rank)
      require(held[rank] <= cluster.tokens_per_rank, "plan: rank ", rank, " holds ", held[rank], " tokens in micro-batch ", m,
              ", at most ", cluster.tokens_per_rank);
  }
  for (std::int32_t sequence = 0; sequence < count; ++sequence)
    require(seen[sequence] == 1, "plan: sequence ", sequence, " of ", plan.sequences[sequence].tokens,
            " tokens is in no group");
}

std::vector<std::int64_t> rank_tokens(const Plan& plan, int micro_batch) {
  require(0 <= micro_batch && micro_batch < static_cast<int>(plan.micro_batches.size()), "plan: micro-batch ", micro_batch,
          ", there are ", plan.micro_batches.size());
  std::vector<std::int64_t> held(plan.ranks);
  for (const auto& group : plan.micro_batches[micro_batch].groups) {
    const int degree = static_cast<int>(group.ranks.size());
    for (const SequenceIndex sequence : group.sequences)
      for (int position = 0; position < degree; ++position)
        held[group.ranks[position].value()] +=
            tokens_held(plan.sequences[sequence.value()].tokens, group.cut, degree, position);
  }
  return held;
}

void predict(Plan& plan, const CostModel& cost) {
  std::vector<double> e(plan.ranks + 1);
  for (int degree = 2; degree <= plan.ranks; ++degree) e[degree] = cost.link_seconds_per_token(degree);
  plan.rank_seconds.assign(plan.ranks, cost.micro_batch_seconds * static_cast<double>(plan.micro_batches.size()));
  plan.compute_seconds.assign(plan.ranks, 0.0);
  double slowest_sum = 0.0;  // over micro-batches
  for (const auto& micro_batch : plan.micro_batches) {
    std::vector<double> seconds(plan.ranks);
    for (const auto& group : micro_batch.groups) {
      const int degree = static_cast<int>(group.ranks.size());
      double compute = 0.0, other = 0.0;
      for (const SequenceIndex index : group.sequences) {
        const Sequence& sequence = plan.sequences[index.value()];
        compute += cost.compute_seconds(sequence) / degree;
        other +=
            e[degree] * static_cast<double>(sequence.tokens) / degree + cost.hop_seconds * (degree - 1) + sequence.fixed_cost;
      }
      for (const Rank rank : group.ranks)
        seconds[rank.value()] += compute + other, plan.compute_seconds[rank.value()] += compute;
    }
    for (int rank = 0; rank < plan.ranks; ++rank) plan.rank_seconds[rank] += seconds[rank];
    slowest_sum += cost.micro_batch_seconds + *std::max_element(seconds.begin(), seconds.end());
  }
  plan.makespan = plan.synchronisation == Synchronisation::step
                      ? *std::max_element(plan.rank_seconds.begin(), plan.rank_seconds.end())
                      : slowest_sum;
}

double balance(std::span<const double> rank_seconds) {
  const double sum = std::accumulate(rank_seconds.begin(), rank_seconds.end(), 0.0);
  if (sum <= 0.0) return 1.0;
  return *std::max_element(rank_seconds.begin(), rank_seconds.end()) * static_cast<double>(rank_seconds.size()) / sum;
}

}  // namespace hetsp::planner
