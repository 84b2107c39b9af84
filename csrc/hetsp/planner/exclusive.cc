#include "hetsp/planner/exclusive.h"

#include <chrono>
#include <cmath>
#include <string_view>

#include "hetsp/base/error.h"
#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/planner/exclusive_auto.h"
#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/pack_step.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Zeppelin's zones share ranks unless the caller wants disjoint groups; all others run one group of a rank at a time.
bool shares_ranks(std::string_view strategy, const Task& task) { return strategy == "zeppelin" && !task.options.exclusive; }

// The bound in shares that sum to it, in proportion to each micro-batch's own area bound.
void share_bound(Plan& plan, const Task& task) {
  std::vector<Modes::Mode> used;
  double sum = 0.0;
  for (MicroBatch& micro_batch : plan.micro_batches) {
    std::vector<Sequence> sequences;
    for (const Group& group : micro_batch.groups)
      for (const SequenceIndex s : group.sequences) sequences.push_back(plan.sequences[s.value()]);
    const auto instance = task.modes.instance(sequences, used);
    const double own = packing::AreaBound(instance, packing::make_types(instance.items)).makespan();
    micro_batch.lower_bound = std::isfinite(own) ? own + task.cost.micro_batch_seconds : micro_batch.makespan;  // offloaded
    sum += micro_batch.lower_bound;
  }
  for (MicroBatch& micro_batch : plan.micro_batches) micro_batch.lower_bound *= sum > 0.0 ? plan.lower_bound / sum : 0.0;
}

void require_count(const Plan& plan, const Task& task) {
  const int asked = task.options.micro_batches;
  if (asked == 0 || std::ssize(plan.micro_batches) <= asked) return;
  throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" needs ", plan.micro_batches.size(),
                              " micro-batches for ", total_tokens(task.sequences), " tokens on ", task.cluster.ranks,
                              " ranks with room for ", task.cluster.tokens_per_rank, " tokens each; ",
                              task.options.micro_batches, " were asked for"));
}

}  // namespace

Plan make_exclusive_plan(const Task& task) {
  const auto start = Clock::now();
  Plan plan;
  if (task.options.strategy == "auto") {
    plan = plan_auto(task);
  } else {
    plan = price(task, make_draft(task.options.strategy, task), shares_ranks(task.options.strategy, task));
    plan.lower_bound = area_bound(task);
    plan.first_incumbent_seconds = since(start);
  }
  require_count(plan, task);
  plan.strategy = task.options.strategy;
  share_bound(plan, task);
  check(plan, task.cluster);
  invariant(plan.lower_bound <= plan.makespan * (1.0 + 1e-9), "the bound of ", plan.lower_bound, " s is above a plan of ",
            plan.makespan, " s");
  return plan;
}

}  // namespace hetsp::planner
