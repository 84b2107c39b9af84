#include "hetsp/simulator/simulate.h"

#include "hetsp/planner/plan_check.h"
#include "hetsp/simulator/event_loop.h"

namespace hetsp::simulator {

Timeline simulate(const planner::Plan& plan, const planner::CostModel& cost, const Machine& machine, const Options& options) {
  Timeline timeline = run(machine, lower(plan, cost, machine, options), options.contention);
  std::vector<std::vector<std::vector<int>>> members;
  for (const auto& micro_batch : plan.micro_batches) {
    auto& groups = members.emplace_back();
    for (const auto& group : micro_batch.groups) {
      auto& ranks = groups.emplace_back();
      for (const auto rank : group.ranks) ranks.push_back(rank.value());
    }
  }
  account(timeline, members);
  return timeline;
}

}  // namespace hetsp::simulator
