#include "hetsp/planner/exclusive.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/planner/chain_search.h"
#include "hetsp/planner/pack_step.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/strategies/bytescale.h"
#include "hetsp/planner/strategies/dhp.h"
#include "hetsp/planner/strategies/flexsp.h"
#include "hetsp/planner/strategies/homogeneous.h"
#include "hetsp/planner/strategies/megatron.h"
#include "hetsp/planner/strategies/zeppelin.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct NamedDraft {
  const char* name;
  Draft (*make)(const Task&);
  std::size_t most =
      std::numeric_limits<std::size_t>::max();  // sequences up to which it is cheap, so that `auto` tries it, too
};

constexpr std::array kDrafts = {
    NamedDraft{"static", draft_static},
    NamedDraft{"data-parallel", draft_data_parallel},
    NamedDraft{"adaptive", draft_adaptive},
    NamedDraft{"te-cp", draft_te_cp},
    NamedDraft{"llama-cp", draft_llama_cp},
    NamedDraft{"megatron-static", draft_megatron_static},
    NamedDraft{"megatron-dynamic", draft_megatron_dynamic, 4096},
    NamedDraft{"dhp", draft_dhp, 4096},
    NamedDraft{"flexsp", draft_flexsp, 1024},
    NamedDraft{"bytescale-naive", draft_bytescale_naive, 4096},
    NamedDraft{"bytescale", draft_bytescale_dp, 4096},
    NamedDraft{"bytescale-pp", draft_bytescale_pp, 4096},
    NamedDraft{"zeppelin", draft_zeppelin, 4096},
};

constexpr std::size_t kMostChained = 16384;  // sequences; above, whole ones fill every chain
constexpr double kPackingTime = 0.4;         // of the time_limit, where chains are searched after it

// Zeppelin's zones share ranks unless the caller wants disjoint groups; all others run one group of a rank at a time.
bool shares_ranks(std::string_view strategy, const Task& task) { return strategy == "zeppelin" && !task.options.exclusive; }

Plan price(const Task& task, Draft draft, bool shared = false) {
  if (!shared) draft = serialise(std::move(draft), task.cluster.ranks);
  Plan plan = make_plan(task.sequences, std::move(draft), task.cluster, task.options.synchronisation);
  plan.exclusive = !shared;
  plan.offloadable = task.cluster.host.offloadable();
  predict(plan, task.cost, task.cluster.ranks_per_node);
  return plan;
}

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

bool too_many(const Plan& plan, const Task& task) {
  const int asked = task.options.micro_batches;
  return asked > 0 && static_cast<int>(plan.micro_batches.size()) > asked;
}

void require_count(const Plan& plan, const Task& task) {
  if (!too_many(plan, task)) return;
  throw PlanInfeasible(concat("plan: strategy \"", task.options.strategy, "\" needs ", plan.micro_batches.size(),
                              " micro-batches for ", total_tokens(task.sequences), " tokens on ", task.cluster.ranks,
                              " ranks with room for ", task.cluster.tokens_per_rank, " tokens each; ",
                              task.options.micro_batches, " were asked for"));
}

// Takes over the groups of `other` where they are better and not too many.
void offer(Plan& plan, Plan other, const Task& task) {
  if (other.makespan >= plan.makespan || too_many(other, task)) return;
  plan.micro_batches = std::move(other.micro_batches);
  predict(plan, task.cost, task.cluster.ranks_per_node);
}

// The search's plan, or a strategy's where that is better; its bound is of the degrees of `task`.
Plan best_of_degrees(const Task& task) {
  const bool chains = task.options.synchronisation == Synchronisation::step && task.sequences.size() <= kMostChained;
  PlanOptions options = task.options;
  if (chains) options.time_limit *= kPackingTime;
  Packed packed = pack_step({task.sequences, task.cluster, task.cost, options, task.modes});
  std::vector<Draft> seeds;
  if (chains) seeds.push_back(packed.draft);
  Plan plan = price(task, std::move(packed.draft));
  plan.lower_bound = std::max(packed.lower_bound, area_bound(task));  // the packing's own was cut off by its limits
  plan.first_incumbent_seconds = packed.first_seconds;
  plan.status = packed.status;
  for (const auto& candidate : kDrafts) {
    if (task.sequences.size() > candidate.most) continue;
    // Its search takes as long as ours: a caller in a hurry goes without.
    if (candidate.make == draft_flexsp && task.options.time_limit > 0.0) continue;
    try {
      Draft draft = candidate.make(task);
      if (chains) seeds.push_back(draft);
      offer(plan, price(task, std::move(draft)), task);
    } catch (const PlanInfeasible&) {  // a strategy that cannot serve this step is no candidate
    } catch (const InvalidArgument&) {
    }
  }
  if (chains) {
    const double rest = (1.0 - kPackingTime) * task.options.time_limit;
    offer(plan, price(task, search_chains(task, seeds, area_bound(task), rest)), task);
  }
  return plan;
}

// The plan of powers of two alone, made as a caller gets it who asks for them; none where they cannot serve the step.
std::optional<Plan> plan_of_powers(const Task& task, double time_limit) {
  PlanOptions options = task.options;
  options.degrees = "pow2";
  options.time_limit = time_limit;
  const Modes modes(task.cost, task.cluster, options);
  if (modes.least_degree(longest(task.sequences)) == 0) return std::nullopt;
  try {
    return best_of_degrees({task.sequences, task.cluster, task.cost, options, modes});
  } catch (const PlanInfeasible&) {  // memory too full for so few degrees
    return std::nullopt;
  }
}

// Ten times as many degrees leave a search of the same effort less thorough: so where any degree is allowed, powers of two are
// searched, too, with the same work_limit or kPowersTime of the time_limit, and what they find is kept where it is better.
Plan best_plan(const Task& task) {
  constexpr double kPowersTime = 0.4;
  if (task.options.degrees != "any") return best_of_degrees(task);
  auto powers = plan_of_powers(task, kPowersTime * task.options.time_limit);
  PlanOptions options = task.options;
  options.time_limit *= 1.0 - kPowersTime;
  const Task rest{task.sequences, task.cluster, task.cost, options, task.modes};
  if (!powers) return best_of_degrees(rest);
  const double spent = powers->first_incumbent_seconds;
  Plan plan = best_of_degrees(rest);
  plan.first_incumbent_seconds = spent;
  if (powers->makespan >= plan.makespan) return plan;
  plan.micro_batches = std::move(powers->micro_batches);
  predict(plan, task.cost, task.cluster.ranks_per_node);
  if (plan.gap() <= task.options.target_gap) plan.status = "target";
  return plan;
}

}  // namespace

const std::vector<std::string>& draft_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const auto& draft : kDrafts) list.emplace_back(draft.name);
    return list;
  }();
  return names;
}

Draft make_draft(std::string_view strategy, const Task& task) {
  for (const auto& draft : kDrafts)
    if (strategy == draft.name) return draft.make(task);
  throw BrokenInvariant(concat("strategy \"", strategy, "\" makes no draft"));
}

Plan make_exclusive_plan(const Task& task) {
  const auto start = Clock::now();
  Plan plan;
  if (task.options.strategy == "auto") {
    plan = best_plan(task);
  } else {
    plan = price(task, make_draft(task.options.strategy, task), shares_ranks(task.options.strategy, task));
    plan.lower_bound = area_bound(task);
    plan.first_incumbent_seconds = since(start);
  }
  require_count(plan, task);
  // With one wait at the end ranks may catch up between micro-batches, and offloading groups hold more: the packing's bound
  // knows neither.
  if (task.options.synchronisation == Synchronisation::step || plan.offloadable > 0.0)
    plan.lower_bound = std::min(plan.lower_bound, area_bound(task));
  plan.strategy = task.options.strategy;
  share_bound(plan, task);
  check(plan, task.cluster);
  invariant(plan.lower_bound <= plan.makespan * (1.0 + 1e-9), "the bound of ", plan.lower_bound, " s is above a plan of ",
            plan.makespan, " s");
  return plan;
}

}  // namespace hetsp::planner
