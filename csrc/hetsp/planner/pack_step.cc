#include "hetsp/planner/pack_step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "hetsp/base/ceil_div.h"
#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/pack.h"
#include "hetsp/packing/pack_batch.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr std::int64_t kWork = 30'000'000, kWorkOfSequence = 50'000;  // visits of an item; for 512 sequences half a second
constexpr std::int64_t kSequences = 2'000;                             // from which on it grows no more

// Chains start from the packing and improve it by far more than its own search could: it is made with the packing's default.
packing::Limits limits_of(const Task& task) {
  const PlanOptions& options = task.options;
  std::int64_t work = options.work_limit;
  if (work == 0 && options.time_limit == 0.0 && options.synchronisation != Synchronisation::step)
    work = kWork + kWorkOfSequence * std::min<std::int64_t>(std::ssize(task.sequences), kSequences);
  return {.work = work,
          .seconds = options.time_limit,
          .seed = options.seed,
          .target_gap = options.target_gap,
          .cancel = options.cancel};
}

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
  if (task.options.synchronisation == Synchronisation::step) {
    // A group of d ranks pays d micro_batch_seconds and holds at most d times a rank's room: each token at least its part of
    // that. So ranks may have different counts of micro-batches, and waits only add.
    for (auto& mode : instance.modes) mode.per_token += task.cost.micro_batch_seconds / static_cast<double>(mode.room);
    return packing::AreaBound(instance, packing::make_types(instance.items)).makespan();
  }
  const std::int64_t room = widened(task.cluster.tokens_per_rank) * task.cluster.ranks;
  const auto micro_batches = std::max<std::int64_t>(1, ceil_div(total_tokens(task.sequences), room));
  return packing::AreaBound(instance, packing::make_types(instance.items)).makespan() +
         task.cost.micro_batch_seconds * static_cast<double>(micro_batches);
}

namespace {

// All sequences in one micro-batch.
Packed pack_one(const Task& task) {
  std::vector<Modes::Mode> used;
  const auto instance = task.modes.instance(task.sequences, used);
  const auto certified = packing::pack(instance, limits_of(task));
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
  std::vector<Modes::Mode> used;
  const auto instance = task.modes.instance(task.sequences, used);
  const auto certified =
      packing::pack_batch(instance, task.cost.micro_batch_seconds, task.options.micro_batches, limits_of(task));
  std::vector<int> all(task.sequences.size());
  std::iota(all.begin(), all.end(), 0);
  Packed packed;
  for (const auto& packing : certified.micro_batches) packed.draft.micro_batches.push_back(groups_of(packing, used, all));
  packed.lower_bound = certified.lower_bound;
  packed.first_seconds = certified.first_seconds;
  packed.status = certified.status;
  return packed;
}

}  // namespace hetsp::planner
