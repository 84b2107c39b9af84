#include "hetsp/simulator/step_program.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::simulator {

namespace {

using planner::Group;
using planner::Plan;

constexpr int kMostSteps = 64;  // of a ring: its time is off by at most one step, 1/64

struct Pass {
  double attention, linear;  // shares of the work
  double kv_bytes;           // of an element of keys and values, all that travel in a hop
  bool backward;
};

std::vector<Pass> passes_of(const planner::CostModel& cost) {
  if (!cost.shape) return {{1.0, 1.0, 0.0, false}};
  const double e = cost.shape->bytes, g = cost.shape->gradient_bytes;
  if (!cost.recompute) return {{2.0 / 7, 1.0 / 3, e, false}, {5.0 / 7, 2.0 / 3, e + g, true}};
  return {{2.0 / 9, 1.0 / 4, e, false}, {2.0 / 9, 1.0 / 4, e, false}, {5.0 / 9, 1.0 / 2, e + g, true}};
}

class Lowering {
 public:
  Lowering(const Plan& plan, const planner::CostModel& cost, const Machine& machine, const Options& options)
      : plan_(plan),
        cost_(cost),
        machine_(machine),
        options_(options),
        passes_(passes_of(cost)),
        entry_(static_cast<std::size_t>(machine.ranks), -1),
        open_(static_cast<std::size_t>(machine.ranks)) {}

  TaskGraph lower() {
    for (std::size_t index = 0; index < plan_.micro_batches.size(); ++index) {
      micro_batch_ = static_cast<int>(index);
      const auto& groups = plan_.micro_batches[index].groups;
      const auto order = slowest_links_first(groups);
      for (const auto& pass : passes_) {
        for (const int group : order) lower_group(groups[group], group, pass);
        close_pass();
      }
      close_micro_batch();
    }
    return std::move(graph_);
  }

 private:
  // A group of a pass, while it is lowered.
  struct Part {
    int index;
    std::vector<int> ranks;
    int degree, rings;
    double tokens = 0.0, sequences = 0.0;
    double attention_seconds = 0.0, linear_seconds = 0.0;  // on each rank
    planner::GroupCost cost;
  };

  std::vector<int> slowest_links_first(const std::vector<Group>& groups) const {
    std::vector<int> order(groups.size());
    std::iota(order.begin(), order.end(), 0);
    const auto zone = [&](int group) {
      const auto& ranks = groups[group].ranks;
      const auto elsewhere = [&](Rank rank) { return machine_.node(rank.value()) != machine_.node(ranks.front().value()); };
      return std::any_of(ranks.begin(), ranks.end(), elsewhere) ? 0 : ranks.size() > 1 ? 1 : 2;
    };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return zone(a) < zone(b); });
    return order;
  }

  Part part_of(const Group& group, int index, const Pass& pass) const {
    Part part{.index = index,
              .ranks = {},
              .degree = static_cast<int>(group.ranks.size()),
              .rings = group.strategy.ring_degree,
              .cost = {}};
    for (const auto rank : group.ranks) part.ranks.push_back(rank.value());
    part.cost = cost_.group_cost(group.strategy, part.degree, machine_.ranks_per_node);
    double pairs = 0.0, fixed = 0.0;
    for (const auto sequence : group.sequences) {
      const auto& it = plan_.sequences[sequence.value()];
      part.tokens += static_cast<double>(it.tokens);
      pairs += static_cast<double>(it.visible_pairs);
      fixed += it.fixed_cost;
    }
    part.sequences = options_.packed ? 1.0 : static_cast<double>(group.sequences.size());
    part.attention_seconds = pass.attention * part.cost.per_pair * pairs;
    const bool first = &pass == passes_.data();
    part.linear_seconds = pass.linear * (part.cost.per_token - part.cost.communication_per_token) * part.tokens + first * fixed;
    return part;
  }

  void lower_group(const Group& group, int index, const Pass& pass) {
    const Part part = part_of(group, index, pass);
    const int entered = graph_.join();
    for (const int rank : part.ranks) {
      if (entry_[rank] >= 0) graph_.before(entry_[rank], entered);
      if (!options_.overlap) {
        for (const int task : open_[rank]) graph_.before(task, entered);  // communication keeps its rank busy
      }
    }
    int ready = entered;
    if (!pass.backward) ready = all_compute(part, part.linear_seconds, Work::linear, entered);
    if (part.degree > 1) ready = communicate_before(group, part, pass, ready);
    ready = attend(group, part, pass, ready);
    if (group.strategy.head_degree > 1 && cost_.shape) {
      const double heads = cost_.shape->heads;
      ready = all_to_all_after(group, part, heads / group.strategy.head_degree, 1.0, ready);
    }
    if (pass.backward) ready = all_compute(part, part.linear_seconds, Work::linear, ready);
    for (const int rank : part.ranks) open_[rank].push_back(ready);
  }

  // A computation on each rank of the group; returns a task that ends with the last of them.
  int all_compute(const Part& part, double seconds, Work work, int after) {
    std::vector<int> tasks;
    for (const int rank : part.ranks) {
      tasks.push_back(graph_.compute(rank, seconds, work, micro_batch_, part.index));
      graph_.before(after, tasks.back());
    }
    return joined(tasks);
  }

  int joined(const std::vector<int>& tasks) {
    const int join = graph_.join();
    for (const int task : tasks) graph_.before(task, join);
    return join;
  }

  int send(Bundle bundle, const Part& part, double starts, int after) {
    bundle.start_seconds *= starts * part.sequences;
    const int task = graph_.transfer(std::move(bundle), micro_batch_, part.index);
    graph_.before(after, task);
    return task;
  }

  // Seconds that a table says, as a message without links.
  int delay(const Part& part, double seconds, int after) {
    const int task = graph_.transfer({.bytes = 0.0, .start_seconds = seconds, .uses = {}}, micro_batch_, part.index);
    graph_.before(after, task);
    return task;
  }

  double table_seconds(const Part& part) const {
    return part.cost.communication_per_token * part.tokens + part.cost.communication_per_sequence * part.sequences;
  }

  int all_to_all_after(const Group& group, const Part& part, double heads_each, double starts, int after) {
    const auto& shape = *cost_.shape;
    const double bytes = part.tokens / part.degree * shape.bytes * shape.head_dim * heads_each * shape.attention_layers();
    std::vector<int> sent;
    for (auto& bundle : all_to_all(machine_, part.ranks, group.strategy.head_degree, bytes))
      sent.push_back(send(std::move(bundle), part, starts * shape.attention_layers(), after));
    return joined(sent);
  }

  int communicate_before(const Group& group, const Part& part, const Pass& pass, int after) {
    const auto& kind = group.strategy;
    if (!cost_.shape) return part.rings > 1 && !kind.gather_kv ? after : delay(part, table_seconds(part), after);
    const auto& shape = *cost_.shape;
    if (kind.head_degree > 1) {
      const double kv_heads = std::max(shape.kv_heads, kind.head_degree);
      after = all_to_all_after(group, part, (shape.heads + 2.0 * kv_heads) / kind.head_degree, 3.0, after);
    }
    if (part.rings > 1 && kind.gather_kv) {
      const double collectives = pass.backward ? 2.0 : 1.0;  // keys again, and their gradients
      after = send(all_gather(machine_, part.ranks, (part.rings - 1) * hop_bytes(group, part, pass)), part,
                   collectives * shape.attention_layers(), after);
    }
    return after;
  }

  // Keys and values that a rank passes on, of all layers.
  double hop_bytes(const Group& group, const Part& part, const Pass& pass) const {
    const auto& shape = *cost_.shape;
    const double heads = std::max(shape.kv_heads, group.strategy.head_degree);
    return part.tokens / part.degree * 2.0 * heads * shape.head_dim * pass.kv_bytes * shape.attention_layers();
  }

  int attend(const Group& group, const Part& part, const Pass& pass, int after) {
    const bool ring = part.rings > 1 && !group.strategy.gather_kv;
    const int steps = ring ? std::min(part.rings, kMostSteps) : 1;
    const double hops_each = ring ? (part.rings - 1.0) / (steps - 1.0) : 0.0;
    int hop = after, last = after, before_last = after;  // steps done by all
    for (int step = 0; step < steps; ++step) {
      if (step > 0) {
        const int freed = options_.overlap ? before_last : last;  // whose block of keys the hop may overwrite
        hop = next_hop(group, part, pass, hops_each, joined({hop, freed}));
      }
      const double share = ring ? (step == 0 ? 1.0 : hops_each) / part.rings : 1.0;
      before_last = last;
      last = all_compute(part, share * part.attention_seconds, Work::attention, hop);
    }
    return last;
  }

  int next_hop(const Group& group, const Part& part, const Pass& pass, double hops, int after) {
    if (!cost_.shape) return delay(part, table_seconds(part) * hops / (part.rings - 1), after);
    for (auto& leg :
         ring_hop(machine_, part.ranks, group.strategy.head_degree, hops * hop_bytes(group, part, pass), options_.routing)) {
      after = send(std::move(leg), part, hops * cost_.shape->attention_layers(), after);
    }
    return after;
  }

  // A rank's next pass begins when all its groups of this one are done.
  void close_pass() {
    for (int rank = 0; rank < machine_.ranks; ++rank) {
      if (open_[rank].empty()) continue;
      entry_[rank] = joined(open_[rank]);
      open_[rank].clear();
    }
  }

  void fixed_work(int rank, double seconds) {
    const int task = graph_.compute(rank, seconds, Work::fixed, micro_batch_, -1);
    if (entry_[rank] >= 0) graph_.before(entry_[rank], task);
    entry_[rank] = task;
  }

  void close_micro_batch() {
    const auto& micro_batch = plan_.micro_batches[micro_batch_];
    for (const auto rank : micro_batch.placeholder.ranks) fixed_work(rank.value(), cost_.placeholder_seconds);
    if (is_chained(plan_)) {
      for (const auto& group : micro_batch.groups)
        for (const auto rank : group.ranks) fixed_work(rank.value(), cost_.micro_batch_seconds);
      return;
    }
    for (int rank = 0; rank < machine_.ranks; ++rank) fixed_work(rank, cost_.micro_batch_seconds);
    if (plan_.synchronisation == planner::Synchronisation::step) return;
    const int all = joined(entry_);
    std::fill(entry_.begin(), entry_.end(), all);
  }

  const Plan& plan_;
  const planner::CostModel& cost_;
  const Machine& machine_;
  const Options& options_;
  const std::vector<Pass> passes_;
  int micro_batch_ = 0;
  TaskGraph graph_;
  std::vector<int> entry_;              // [ranks] what a rank's next pass waits for; -1: nothing
  std::vector<std::vector<int>> open_;  // [ranks] ends of its groups in this pass
};

}  // namespace

TaskGraph lower(const Plan& plan, const planner::CostModel& cost, const Machine& machine, const Options& options) {
  check(machine);
  planner::check(cost);
  require(plan.ranks == machine.ranks, "simulator: the plan has ", plan.ranks, " ranks, the machine ", machine.ranks);
  require(!cost.network || *cost.network == machine.network,
          "simulator: the cost model knows another network than the machine");
  return Lowering(plan, cost, machine, options).lower();
}

}  // namespace hetsp::simulator
