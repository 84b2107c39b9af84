#include "hetsp/planner/exclusive_auto.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "hetsp/base/error.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/rounds.h"
#include "hetsp/planner/chain_search.h"
#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/pack_step.h"
#include "hetsp/planner/replay_search.h"

namespace hetsp::planner {

namespace {

constexpr std::size_t kMostChained = 16384;  // sequences; above, whole ones fill every chain
constexpr double kPackingTime = 0.4;         // of the time_limit, where chains are searched after it
constexpr double kPowersTime = 0.4;          // of the time_limit, where any degree is searched after powers of two

constexpr double kReplayTime = 0.25;         // of the time_limit, where plans are replayed: for the search by replay
constexpr std::int64_t kReplays = 1500;      // of that search, without a work_limit; 0.3 to 1 ms each

// Shares of a ring's hops that prices take as hidden, for plans that are replayed.
constexpr double kHidden[] = {0.0, 0.5, 1.0};

class Best {
 public:
  explicit Best(const Task& task) : task_(task) {}

  void offer(Draft draft) {
    Plan plan = price(task_, std::move(draft));
    const int asked = task_.options.micro_batches;
    if (asked > 0 && std::ssize(plan.micro_batches) > asked) return;
    const double seconds = task_.options.replay ? task_.options.replay(plan).seconds : plan.makespan;
    if (seconds > seconds_ || (seconds == seconds_ && plan.makespan >= plan_.makespan)) return;
    seconds_ = seconds;
    plan_ = std::move(plan);
  }
  [[nodiscard]] const Plan& plan() const { return plan_; }
  [[nodiscard]] Plan take() && { return std::move(plan_); }

 private:
  const Task& task_;
  double seconds_ = std::numeric_limits<double>::infinity();
  Plan plan_;
};

bool is_chained(const Task& task) {
  return task.options.synchronisation == Synchronisation::step && task.sequences.size() <= kMostChained;
}

// Named strategies' drafts of these degrees; those that cannot serve the step are left out.
std::vector<Draft> drafts_of(const Task& task) {
  std::vector<Draft> drafts;
  for (const auto& named : named_drafts()) {
    if (task.sequences.size() > named.most || (named.searches && task.options.time_limit > 0.0)) continue;
    try {
      drafts.push_back(named.make(task));
    } catch (const PlanInfeasible&) {
    } catch (const InvalidArgument&) {  // the kinds or degrees exclude it
    }
  }
  return drafts;
}

// Packing, and chains from it and from `seeds`, at the prices of task.modes; returns the packing.
Packed search(const Task& task, const std::vector<Draft>& seeds, Best& best) {
  PlanOptions options = task.options;
  if (is_chained(task)) options.time_limit *= kPackingTime;
  Packed packed = pack_step({task.sequences, task.cluster, task.cost, options, task.modes});
  best.offer(packed.draft);
  if (!is_chained(task)) return packed;
  std::vector<Draft> starts = seeds;
  starts.push_back(packed.draft);
  best.offer(search_chains(task, starts, area_bound(task), (1.0 - kPackingTime) * task.options.time_limit));
  return packed;
}

// Everything there is at the degrees of `task`, searched within its limits.
Packed search_all(const Task& task, Best& best) {
  const std::vector<Draft> drafts = drafts_of(task);
  PlanOptions options = task.options;
  if (options.replay) options.time_limit /= static_cast<double>(std::size(kHidden));
  const Task bounded{task.sequences, task.cluster, task.cost, options, task.modes};
  Packed packed = search(bounded, drafts, best);
  for (const Draft& draft : drafts) best.offer(draft);
  if (!task.options.replay) return packed;
  for (const double hidden : kHidden) {
    if (hidden == 0.0) continue;
    const Modes modes(task.cost, task.cluster, options, hidden);
    (void)search({task.sequences, task.cluster, task.cost, options, modes}, drafts, best);
  }
  return packed;
}

// Ten times as many degrees leave a search of the same effort less thorough: so where any degree is allowed, powers of two are
// searched as a caller has them searched who asks for them. Returns the seconds to the first plan; none where they cannot
// serve.
std::optional<double> search_powers(const Task& task, Best& best) {
  PlanOptions options = task.options;
  options.degrees = "pow2";
  options.time_limit *= kPowersTime;
  const Modes modes(task.cost, task.cluster, options);
  if (modes.least_degree(longest(task.sequences)) == 0) return std::nullopt;
  try {
    return search_all({task.sequences, task.cluster, task.cost, options, modes}, best).first_seconds;
  } catch (const PlanInfeasible&) {  // memory too full for so few degrees
    return std::nullopt;
  }
}

}  // namespace

Plan plan_auto(const Task& task) {
  Best best(task);
  PlanOptions options = task.options;
  if (options.replay) options.time_limit *= 1.0 - kReplayTime;
  std::optional<double> first_seconds;
  if (options.degrees == "any") {
    first_seconds = search_powers({task.sequences, task.cluster, task.cost, options, task.modes}, best);
    options.time_limit *= 1.0 - kPowersTime;
  }
  const Packed packed = search_all({task.sequences, task.cluster, task.cost, options, task.modes}, best);
  if (options.replay) {
    const std::int64_t replays = kReplays * work_of_replay(task);
    packing::Effort effort(options.work_limit > 0 ? options.work_limit : replays, kReplayTime * task.options.time_limit,
                           options.cancel);
    best.offer(search_by_replay(task, best.plan(), effort));
  }
  Plan plan = std::move(best).take();
  plan.lower_bound = area_bound(task);
  // With one wait at the end ranks may catch up between micro-batches, and offloading groups hold more: the packing's bound
  // knows neither.
  if (options.synchronisation != Synchronisation::step && plan.offloadable == 0.0)
    plan.lower_bound = std::max(plan.lower_bound, packed.lower_bound);
  plan.first_incumbent_seconds = first_seconds.value_or(packed.first_seconds);
  plan.status = packing::status_of(plan.gap(), options.target_gap);
  return plan;
}

}  // namespace hetsp::planner
