// Plans, machines and cost models for the tests of the simulator.
#pragma once

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"
#include "hetsp/simulator/simulate.h"

namespace step_cases {

using namespace hetsp;
using namespace hetsp::planner;

// Two layers, 8 heads and 4 of keys of 4 elements.
inline ModelShape small_shape() {
  return {.layers = 2, .hidden = 32, .intermediate = 64, .heads = 8, .kv_heads = 4, .head_dim = 4, .vocabulary = 10};
}

inline Network small_network(double start = 0.0, int nics = 0) {
  return {.intra_node = {1e6, start}, .inter_node = {1e5, start}, .nics_per_node = nics};
}

inline Group group_of(int first, int count, Strategy kind, const std::vector<int>& sequences) {
  Group group{.sequences = {}, .ranks = {}, .strategy = kind, .cut = count > 1 ? Cut::zigzag : Cut::whole};
  for (int rank = first; rank < first + count; ++rank) group.ranks.emplace_back(rank);
  for (const int sequence : sequences) group.sequences.emplace_back(sequence);
  return group;
}

inline Plan plan_of(int ranks, std::vector<Sequence> sequences, std::vector<MicroBatch> micro_batches,
                    Synchronisation synchronisation = Synchronisation::step) {
  Plan plan;
  plan.ranks = ranks;
  plan.sequences = std::move(sequences);
  plan.micro_batches = std::move(micro_batches);
  plan.synchronisation = synchronisation;
  return plan;
}

// What a group costs each of its ranks, as the planner predicts it.
inline double predicted(const Plan& plan, const Group& group, const CostModel& cost, int ranks_per_node) {
  const GroupCost each = cost.group_cost(group.strategy, static_cast<int>(group.ranks.size()), ranks_per_node);
  double seconds = 0.0;
  for (const auto index : group.sequences) {
    const Sequence& it = plan.sequences[index.value()];
    seconds += each.per_pair * static_cast<double>(it.visible_pairs) + each.per_token * static_cast<double>(it.tokens) +
               each.per_sequence + it.fixed_cost;
  }
  return seconds;
}

}  // namespace step_cases
