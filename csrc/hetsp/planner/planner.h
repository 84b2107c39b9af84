// From the lengths of a step to its plan.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/plan.h"

namespace hetsp::planner {

// What a finer model than the cost model says of a plan.
struct Replay {
  double seconds = 0.0;                // of the step
  std::vector<double> rank_seconds{};  // [ranks] that it works or communicates, without its waits
};

struct PlanOptions {
  std::string strategy = "auto";                         // one of strategy_names()
  std::vector<std::string> executable{"whole", "ring"};  // kinds of group that the engine can run, of executable_names()
  Synchronisation synchronisation = Synchronisation::step;
  std::int64_t work_limit = 0;  // of `auto`, in visits of a rank by the search; 0: in proportion to sequences x ranks
  double time_limit = 0.0;      // seconds on this machine's clock, 0: none. A plan cut off by it is not reproducible
  std::uint64_t seed = 0;       // of the search's random restarts
  bool exclusive = false;       // disjoint groups: each rank in at most one group of a micro-batch (FlexSP's problem)
  std::string degrees = "any";  // "any": 1, 2, 3, ...; "pow2": 1, 2, 4, ...; up to max_degree
  std::int32_t max_degree = 0;  // ranks of the largest group; 0: all ranks, of exclusive plans at most kMaxDegree
  std::int32_t micro_batches = 0;              // 0: chosen
  double target_gap = 0.0;                     // makespan / bound - 1 at which the search of exclusive plans stops
  // Of exclusive `auto`: a plan by a finer model than the cost model, such as the simulator; the candidate with the fewest
  // seconds is taken. None: the predicted makespan. The bound stays the cost model's, and so the predicted makespan above it.
  // Asked for whole steps, and where ranks wait after each micro-batch for single ones.
  std::function<Replay(const Plan&)> replay{};
  const std::atomic<bool>* cancel = nullptr;  // set by another thread: the search ends with what it has
};

constexpr std::int32_t kMaxDegree = 1024;  // what published tables of bandwidth are extended to

//   auto             any degree; balances the predicted time of the ranks (balance.h). Exclusive: the best packing
//   (exclusive.h) static           every sequence on all ranks, the usual context parallelism. Exclusive:
//   strategies/homogeneous.h data-parallel    whole sequences, longest first onto the least loaded rank others           plans
//   of disjoint groups as published systems make them: strategies/*.h
[[nodiscard]] std::vector<std::string> strategy_names();
[[nodiscard]] std::vector<std::string> executable_names();  // kinds (kind.h); of plans with shared ranks: "whole", "ring"
[[nodiscard]] std::vector<std::string> synchronisation_names();
[[nodiscard]] Synchronisation synchronisation_from(std::string_view name);  // throws InvalidArgument listing the names
[[nodiscard]] std::string_view name_of(Synchronisation synchronisation);

// A checked plan (plan_check.h) with its predicted times and the certified bound over all plans of the executable kinds
// (bounds.h; of exclusive plans exclusive.h), whatever the strategy. The same arguments give the same plan unless time_limit
// cuts the search. A first plan is always finished, whatever the limits. Throws InvalidArgument for a bad argument,
// PlanInfeasible, naming the sequence, where one does not fit into the memory of the largest group that the strategy may form.
[[nodiscard]] Plan make_plan(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost,
                             const PlanOptions& options = {});

}  // namespace hetsp::planner
