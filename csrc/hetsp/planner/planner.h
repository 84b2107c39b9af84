// From the lengths of a step to its plan.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

struct PlanOptions {
  std::string strategy = "auto";                         // one of strategy_names()
  std::vector<std::string> executable{"whole", "ring"};  // kinds of group that the engine can run, of executable_names()
  Synchronisation synchronisation = Synchronisation::step;
  std::int64_t work_limit = 0;  // of `auto`, in visits of a rank by the search; 0: in proportion to sequences x ranks
  double time_limit = 0.0;      // seconds on this machine's clock, 0: none. A plan cut off by it is not reproducible
  std::uint64_t seed = 0;       // of the search's random restarts
};

//   auto           any degree; balances the predicted time of the ranks (balance.h)
//   static         every sequence on all ranks, the usual context parallelism
//   data-parallel  whole sequences, longest first onto the least loaded rank
[[nodiscard]] std::vector<std::string> strategy_names();
[[nodiscard]] std::vector<std::string> executable_names();  // "whole": one rank; "ring"
[[nodiscard]] std::vector<std::string> synchronisation_names();
[[nodiscard]] Synchronisation synchronisation_from(std::string_view name);  // throws InvalidArgument listing the names
[[nodiscard]] std::string_view name_of(Synchronisation synchronisation);

// A checked plan (plan_check.h) with its predicted times and the certified bound over all plans of the executable kinds
// (bounds.h), whatever the strategy. The same arguments give the same plan unless time_limit cuts the search. A first
// plan is always finished, whatever the limits. Throws InvalidArgument for a bad argument, PlanInfeasible, naming the
// sequence, where one does not fit into the memory of the largest group that the strategy may form.
[[nodiscard]] Plan make_plan(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost,
                             const PlanOptions& options = {});

}  // namespace hetsp::planner
