#include "hetsp/packing/passes.h"

#include <algorithm>

namespace hetsp::packing {

Passes::Passes(const Instance& instance, int micro_batches) : instance_(&instance), greedy_(instance, micro_batches) {
  const std::int32_t node = instance.ranks_per_node;
  if (node <= 1 || node >= instance.ranks) return;
  nice_ = instance;
  nice_.modes.clear();
  for (std::size_t m = 0; m < instance.modes.size(); ++m) {
    const std::int32_t ranks = instance.modes[m].ranks;
    if (ranks < node ? node % ranks != 0 : ranks % node != 0) continue;
    nice_.modes.push_back(instance.modes[m]);
    nice_modes_.push_back(static_cast<std::int32_t>(m));
  }
  if (!nice_modes_.empty()) nice_greedy_ = std::make_unique<Greedy>(nice_, micro_batches);
}

bool Passes::pack(const std::vector<double>& targets, const Greedy::Weights& weights, bool nice, Random& random, Effort& effort,
                  std::vector<Packing>& packings) {
  if (nice) {
    Greedy::Weights fewer = weights;
    for (std::size_t m = 0; m < nice_modes_.size(); ++m) {
      if (!weights.time_share.empty()) fewer.time_share[m] = weights.time_share[nice_modes_[m]];
      if (!weights.per_mode.empty()) fewer.per_mode[m] = weights.per_mode[nice_modes_[m]];
    }
    if (!nice_greedy_->pack(targets, fewer, random, effort, packings)) return false;
    for (Packing& packing : packings)
      for (Bin& bin : packing.bins) bin.mode = nice_modes_[bin.mode];
  } else if (!greedy_.pack(targets, weights, random, effort, packings)) {
    return false;
  }
  return std::all_of(packings.begin(), packings.end(), [&](const Packing& p) { return places(*instance_, p); });
}

bool places(const Instance& instance, const Packing& packing) {
  std::vector<std::int32_t> ranks;
  for (const Bin& bin : packing.bins) ranks.push_back(instance.modes[bin.mode].ranks);
  return places(instance, ranks);
}

}  // namespace hetsp::packing
