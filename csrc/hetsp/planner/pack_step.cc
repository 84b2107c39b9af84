#include "hetsp/planner/pack_step.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/batch_search.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/pack.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

// Work of the search for a whole step, unless the options say otherwise: about 0.2 s for 512 sequences on a core of 2017, and
// no more than three times that for any number.
constexpr std::int64_t kWork = 500'000, kWorkPerSequence = 5'000, kSequences = 2'000;

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::vector<DraftGroup> groups_of(const packing::Packing& packing, const std::vector<Modes::Mode>& modes,
                                  const std::vector<int>& chunk) {
  std::vector<DraftGroup> groups;
  for (const auto& bin : packing.bins) {
    auto& group = groups.emplace_back(DraftGroup{.kind = modes[bin.mode].kind, .degree = modes[bin.mode].degree});
    for (const auto i : bin.items) group.sequences.push_back(chunk[i]);
  }
  return groups;
}

}  // namespace

double area_bound(const Task& task) {
  std::vector<Modes::Mode> used;
  auto instance = task.modes.instance(task.sequences, used);
  // With host memory a group may hold more tokens: at most as if all that may leave had left.
  const double kept = 1.0 - task.cluster.host.offloadable();
  const auto widened = [&](std::int64_t room) {
    return static_cast<std::int64_t>(std::ceil(static_cast<double>(room) / kept));
  };
  if (kept < 1.0)
    for (auto& mode : instance.modes) mode.room = widened(mode.room);
  const std::int64_t room = widened(task.cluster.tokens_per_rank) * task.cluster.ranks;
  const auto micro_batches = std::max<std::int64_t>(1, ceil_div(total_tokens(task.sequences), room));
  return packing::AreaBound(instance, packing::make_types(instance.items)).makespan() +
         task.cost.micro_batch_seconds * static_cast<double>(micro_batches);
}

namespace {

// All sequences in one micro-batch.
Packed pack_one(const Task& task) {
  const PlanOptions& options = task.options;
  std::vector<Modes::Mode> used;
  const auto instance = task.modes.instance(task.sequences, used);
  const auto certified = packing::pack(instance, {.work = options.work_limit,
                                                  .seconds = options.time_limit,
                                                  .seed = options.seed,
                                                  .target_gap = options.target_gap,
                                                  .cancel = options.cancel});
  std::vector<int> all(task.sequences.size());
  std::iota(all.begin(), all.end(), 0);
  Packed packed;
  packed.draft.micro_batches.push_back(groups_of(certified.packing, used, all));
  packed.lower_bound = certified.lower_bound + task.cost.micro_batch_seconds;
  packed.first_seconds = certified.first_seconds;
  packed.status = certified.status;
  return packed;
}

}  // namespace

Packed pack_step(const Task& task) {
  if (task.options.micro_batches == 1) return pack_one(task);
  const auto start = Clock::now();
  const PlanOptions& options = task.options;
  std::vector<Modes::Mode> used;
  const auto instance = task.modes.instance(task.sequences, used);
  packing::BatchSearch search(instance, task.cost.micro_batch_seconds, options.micro_batches, options.seed);
  if (!search.first())
    throw PlanInfeasible(concat("plan: no packing of ", task.sequences.size(), " sequences, ", total_tokens(task.sequences),
                                " tokens, into ", options.micro_batches, " micro-batches of ", task.cluster.ranks,
                                " ranks with room for ", task.cluster.tokens_per_rank, " tokens each was found"));
  Packed packed;
  packed.first_seconds = since(start);
  packed.lower_bound = area_bound(task);
  const std::int64_t work = options.work_limit > 0
                                ? options.work_limit
                                : kWork + kWorkPerSequence * std::min<std::int64_t>(std::ssize(instance.items), kSequences);
  packing::Effort effort(work, options.time_limit > 0.0 ? std::max(1e-3, options.time_limit - packed.first_seconds) : 0.0,
                         options.cancel);
  const double near = packed.lower_bound * (1.0 + std::max(1e-6, options.target_gap));
  if (search.seconds() > near) search.improve(effort, near);
  std::vector<int> all(task.sequences.size());
  std::iota(all.begin(), all.end(), 0);
  for (const auto& packing : search.best()) packed.draft.micro_batches.push_back(groups_of(packing, used, all));
  packed.status = search.seconds() <= near ? "target" : "limit";
  return packed;
}

}  // namespace hetsp::planner
