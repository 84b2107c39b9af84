#include "hetsp/planner/assignment.h"

#include <map>

#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

// Larger groups first: a rank starts what others wait for, and its whole sequences fill the end.
struct LargerFirst {
  bool operator()(const std::vector<std::int32_t>& a, const std::vector<std::int32_t>& b) const {
    return a.size() != b.size() ? a.size() > b.size() : a < b;
  }
};

}  // namespace

Plan make_plan(std::span<const Sequence> sequences, const Assignment& assignment, std::int32_t ranks,
               Synchronisation synchronisation) {
  invariant(assignment.size() == sequences.size(), assignment.size(), " places for ", sequences.size(), " sequences");
  std::map<std::int32_t, std::map<std::vector<std::int32_t>, Group, LargerFirst>> micro_batches;
  for (std::size_t s = 0; s < assignment.size(); ++s) {
    const Place& place = assignment[s];
    Group& group = micro_batches[place.micro_batch][place.ranks];
    group.sequences.emplace_back(static_cast<std::int32_t>(s));
  }
  Plan plan;
  plan.ranks = ranks;
  plan.sequences.assign(sequences.begin(), sequences.end());
  plan.synchronisation = synchronisation;
  for (auto& [index, groups] : micro_batches) {
    MicroBatch& micro_batch = plan.micro_batches.emplace_back();
    for (auto& [members, group] : groups) {
      for (const std::int32_t rank : members) group.ranks.emplace_back(rank);
      group.strategy.ring_degree = static_cast<std::int32_t>(members.size());
      group.cut = members.size() == 1 ? Cut::whole : Cut::zigzag;
      micro_batch.groups.push_back(std::move(group));
    }
  }
  fill_placeholders(plan);
  return plan;
}

}  // namespace hetsp::planner
