#include "hetsp/planner/plan_check.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// floor(j tokens / chunks) without overflow, for 0 <= j <= chunks.
std::int64_t even_cut(std::int64_t tokens, std::int64_t chunks, std::int64_t j) {
  return tokens / chunks * j + tokens % chunks * j / chunks;
}

std::int64_t balanced_cut(std::int64_t tokens, int degree, int j) {
  return j == degree ? tokens
                     : static_cast<std::int64_t>(static_cast<double>(tokens) * std::sqrt(static_cast<double>(j) / degree));
}

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

std::int64_t tokens_held(std::int64_t tokens, Cut cut, int degree, int position) {
  require(degree >= 1 && 0 <= position && position < degree, "tokens_held: part ", position, " of ", degree);
  switch (cut) {
    case Cut::whole:
      require(degree == 1, "tokens_held: a whole cut of ", degree, " parts");
      return tokens;
    case Cut::contiguous:
      return even_cut(tokens, degree, position + 1) - even_cut(tokens, degree, position);
    case Cut::zigzag: {
      const std::int64_t chunks = 2 * std::int64_t{degree};
      return even_cut(tokens, chunks, position + 1) - even_cut(tokens, chunks, position) +
             even_cut(tokens, chunks, chunks - position) - even_cut(tokens, chunks, chunks - position - 1);
    }
    case Cut::balanced:
      return balanced_cut(tokens, degree, position + 1) - balanced_cut(tokens, degree, position);
  }
  throw BrokenInvariant(concat("cut ", static_cast<int>(cut), " is unknown"));
}

std::int64_t most_tokens_held(std::int64_t tokens, int degree) {
  const std::int64_t chunks = 2 * std::int64_t{degree}, rest = tokens % chunks;
  return 2 * (tokens / chunks) + (rest == 0 ? 0 : chunks % rest == 0 ? 1 : 2);
}

int least_degree(std::int64_t tokens, std::int64_t tokens_per_rank, int max_degree) {
  // The mean share must fit; at most two tokens above it, so the walk is short.
  const std::int64_t first = std::max<std::int64_t>(1, ceil_div(tokens, tokens_per_rank));
  for (std::int64_t degree = first; degree <= max_degree; ++degree)
    if (most_tokens_held(tokens, static_cast<int>(degree)) <= tokens_per_rank) return static_cast<int>(degree);
  return 0;
}

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
