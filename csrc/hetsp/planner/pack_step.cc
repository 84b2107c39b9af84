#include "hetsp/planner/pack_step.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "hetsp/packing/area_bound.h"
#include "hetsp/packing/item_types.h"
#include "hetsp/packing/pack.h"
#include "hetsp/packing/pack_batch.h"
#include "hetsp/planner/offload.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

constexpr std::int64_t kWork = 30'000'000, kWorkOfSequence = 50'000;  // visits of an item; half a second
constexpr std::int64_t kSequences = 512;  // from which on it grows no more

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

// The area bound (packing/area_bound.h) where sequences offload what computation hides: each needs room for what it keeps.
double offloading_area_bound(const Task& task, const packing::Instance& instance, bool chained) {
  const HostMemory& host = task.cluster.host;
  using Option = std::pair<double, double>;  // seconds, rank-seconds
  std::vector<std::vector<Option>> options;
  for (std::size_t s = 0; s < task.sequences.size(); ++s) {
    const Sequence& sequence = task.sequences[s];
    const double hidden = hidden_ratio(sequence, task.cost, host);
    const double kept = static_cast<double>(sequence.tokens) * (1.0 - hidden * host.offloadable());
    auto& list = options.emplace_back();
    for (const auto& mode : instance.modes) {
      if (!ratio_to_fit(sequence.tokens, mode.room, host, hidden)) continue;
      const double share = chained ? task.cost.micro_batch_seconds * kept / static_cast<double>(mode.room) : 0.0;
      const double seconds = mode.seconds(instance.items[s]) + share;
      list.emplace_back(seconds, mode.ranks * seconds);
    }
  }
  const auto area = [&](double most) {
    double sum = 0.0;
    for (const auto& list : options) {
      double least = std::numeric_limits<double>::infinity();
      for (const auto& [seconds, rank_seconds] : list)
        if (seconds <= most) least = std::min(least, rank_seconds);
      sum += least;
    }
    return sum;
  };
  double low = 0.0, high = 1.0;
  while (area(high) > instance.ranks * high) {
    if (high > 1e30) return 0.0;  // some sequence has no mode
    low = std::exchange(high, 2.0 * high);
  }
  while (high - low > 1e-10 * high) {
    const double middle = 0.5 * (low + high);
    (area(middle) > instance.ranks * middle ? low : high) = middle;
  }
  return low * (1.0 - 1e-9);
}

}  // namespace

double area_bound(const Task& task) {
  std::vector<Modes::Mode> used;
  auto instance = task.modes.instance(task.sequences, used);
  const bool offloads = task.cluster.host.offloadable() > 0.0, chained = task.options.synchronisation == Synchronisation::step;
  // A group of d ranks pays d micro_batch_seconds and holds at most d times a rank's room: each token at least its part of
  // that. So ranks may have different counts of micro-batches, and waits only add.
  if (chained && !offloads)
    for (auto& mode : instance.modes) mode.per_token += task.cost.micro_batch_seconds / static_cast<double>(mode.room);
  const double area = offloads ? offloading_area_bound(task, instance, chained)
                               : packing::AreaBound(instance, packing::make_types(instance.items)).makespan();
  if (chained) return area;
  const double kept = 1.0 - task.cluster.host.offloadable();  // at least, were all gone that may leave
  const double full = kept * static_cast<double>(total_tokens(task.sequences)) /
                      (static_cast<double>(task.cluster.tokens_per_rank) * task.cluster.ranks);
  return area + task.cost.micro_batch_seconds * std::max(1.0, std::ceil(full * (1.0 - 1e-12)));
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
