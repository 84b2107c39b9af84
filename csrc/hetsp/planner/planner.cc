#include "hetsp/planner/planner.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/bounds.h"
#include "hetsp/planner/cut.h"
#include "hetsp/planner/exclusive.h"
#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/strategies.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr std::string_view kSynchronisations[] = {"layer", "micro_batch", "step"};  // in the order of the enum

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

void require_one_of(const char* what, const std::string& name, const std::vector<std::string>& allowed) {
  require(std::find(allowed.begin(), allowed.end(), name) != allowed.end(), "plan: ", what, " \"", name,
          "\" is unknown; allowed: ", join(allowed));
}

bool names(const std::vector<std::string>& list, const char* name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

void check(const PlanOptions& options) {
  require_one_of("strategy", options.strategy, strategy_names());
  for (const auto& kind : options.executable) require_one_of("executable", kind, executable_names());
  require(names(options.executable, "whole"), "plan: executable must contain \"whole\"; it is {", join(options.executable),
          "}");
  require(options.work_limit >= 0, "plan: work_limit is ", options.work_limit,
          " rank visits, must be at least 1, or 0 for the default");
  require(std::isfinite(options.time_limit) && options.time_limit >= 0.0, "plan: time_limit is ", options.time_limit,
          " seconds, must be finite and at least 0");
  require(options.micro_batches >= 0, "plan: micro_batches is ", options.micro_batches,
          ", must be at least 1, or 0 to have it chosen");
  require(std::isfinite(options.target_gap) && options.target_gap >= 0.0, "plan: target_gap is ", options.target_gap,
          ", must be finite and at least 0");
}

// What only plans of disjoint groups can honour.
void check_shared(const PlanOptions& options, const Cluster& cluster) {
  for (const auto& kind : options.executable)
    require(kind == "whole" || kind == "ring", "plan: executable \"", kind,
            "\" is a kind of group that cannot be run yet; allowed: whole, ring; or plan disjoint groups (exclusive)");
  require(options.strategy != "static" || cluster.ranks == 1 || names(options.executable, "ring"),
          "plan: strategy \"static\" on ", cluster.ranks, " ranks needs \"ring\" among the executable kinds; they are {",
          join(options.executable), "}");
  require(options.degrees == "any", "plan: degrees \"", options.degrees, "\" is for disjoint groups (exclusive); allowed: any");
  require(!options.replay, "plan: replay is for disjoint groups (exclusive)");
  require(options.max_degree == 0 && options.micro_batches == 0, "plan: max_degree ", options.max_degree, " and micro_batches ",
          options.micro_batches, " are for disjoint groups (exclusive); allowed: 0");
}

// Every sequence alone must fit on `degree` ranks.
void require_feasible(std::span<const Sequence> sequences, const Cluster& cluster, int degree) {
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    if (least_degree(sequences[s].tokens, cluster.tokens_per_rank, degree) != 0) continue;
    throw PlanInfeasible(
        concat("plan: sequence ", s, " has ", sequences[s].tokens, " tokens; on ", degree,
               degree == 1 ? " rank, the largest group allowed, it holds " : " ranks, the largest group allowed, each holds ",
               most_tokens_held(sequences[s].tokens, degree), " tokens, and a rank has room for ", cluster.tokens_per_rank));
  }
}

Plan make_exclusive(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost,
                    const PlanOptions& options) {
  const Modes modes(cost, cluster, options);
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    if (modes.least_degree(sequences[s].tokens) != 0) continue;
    throw PlanInfeasible(concat("plan: sequence ", s, " has ", sequences[s].tokens, " tokens; the largest group allowed, ",
                                modes.max_degree(), modes.max_degree() == 1 ? " rank" : " ranks", " with room for ",
                                cluster.tokens_per_rank, " tokens each, holds ", modes.room(modes.max_degree())));
  }
  return make_exclusive_plan({sequences, cluster, cost, options, modes});
}

Plan make_shared(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost,
                 const PlanOptions& options) {
  check_shared(options, cluster);
  const int allowed = names(options.executable, "ring") ? cluster.ranks : 1;
  const int used = options.strategy == "static" ? cluster.ranks : options.strategy == "data-parallel" ? 1 : allowed;
  require_feasible(sequences, cluster, used);
  const double bound = lower_bound(sequences, cluster, cost, allowed);
  const Problem problem{sequences, cluster, cost, options, allowed, bound};
  const Assignment places = options.strategy == "static"          ? place_static(problem)
                            : options.strategy == "data-parallel" ? place_data_parallel(problem)
                                                                  : place_auto(problem);
  Plan plan = make_plan(sequences, places, cluster.ranks, options.synchronisation);
  plan.strategy = options.strategy;
  plan.lower_bound = bound;
  // The search and the bound know a group by its degree alone: the table e(d).
  CostModel table = cost;
  table.shape.reset(), table.network.reset();
  predict(plan, table);
  for (MicroBatch& micro_batch : plan.micro_batches)
    micro_batch.lower_bound = bound / static_cast<double>(plan.micro_batches.size());
  check(plan, cluster);
  invariant(plan.lower_bound <= plan.makespan * (1.0 + 1e-9), "the bound of ", plan.lower_bound, " s is above a plan of ",
            plan.makespan, " s");
  return plan;
}

}  // namespace

std::vector<std::string> strategy_names() {
  std::vector<std::string> all{"auto", "static", "data-parallel"};
  for (const auto& name : draft_names())
    if (!names(all, name.c_str())) all.push_back(name);
  return all;
}
std::vector<std::string> executable_names() { return {"whole", "ring", "ulysses", "gather"}; }
std::vector<std::string> synchronisation_names() { return {std::begin(kSynchronisations), std::end(kSynchronisations)}; }
std::string_view name_of(Synchronisation synchronisation) { return kSynchronisations[static_cast<int>(synchronisation)]; }

Synchronisation synchronisation_from(std::string_view name) {
  require_one_of("synchronisation", std::string(name), synchronisation_names());
  return static_cast<Synchronisation>(std::find(std::begin(kSynchronisations), std::end(kSynchronisations), name) -
                                      kSynchronisations);
}

Plan make_plan(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  check(cluster);
  check(cost);
  check(sequences);
  check(options);
  const auto start = std::chrono::steady_clock::now();
  const bool shared = names({"auto", "static", "data-parallel"}, options.strategy.c_str()) && !options.exclusive;
  Plan plan = (shared ? make_shared : make_exclusive)(sequences, cluster, cost, options);
  plan.solve_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (shared) plan.first_incumbent_seconds = plan.solve_seconds;
  if (plan.makespan <= plan.lower_bound * (1.0 + 1e-6)) plan.status = "optimal";
  return plan;
}

}  // namespace hetsp::planner
