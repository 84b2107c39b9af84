#include "hetsp/packing/refine.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace hetsp::packing {

Refine::Refine(const Instance& instance, int micro_batches, std::uint64_t seed)
    : partition_(instance, micro_batches), ruin_(partition_, seed) {}

void Refine::start(const std::vector<Packing>& micro_batches) {
  best_ = micro_batches;
  partition_.load(best_);
}

bool Refine::reach(const std::vector<double>& targets, const Pace& pace, bool from_best, Effort& effort) {
  if (from_best) partition_.load(best_);
  homeless_.clear();
  return settle(targets, pace, effort);
}

bool Refine::build(const std::vector<double>& targets, const Pace& pace, Effort& effort) {
  best_.assign(partition_.micro_batches(), {});
  partition_.load(best_);
  homeless_.resize(partition_.instance().items.size());
  std::iota(homeless_.begin(), homeless_.end(), 0);
  return settle(targets, pace, effort);
}

bool Refine::settle(const std::vector<double>& targets, const Pace& pace, Effort& effort) {
  for (int k = 0; k < partition_.micro_batches(); ++k)
    if (partition_.need(k).target() != targets[k]) partition_.set_target(k, targets[k], homeless_);
  std::sort(homeless_.begin(), homeless_.end());
  for (const auto item : homeless_)
    if (!ruin_.insert(item, effort)) {
      partition_.load(best_);
      return false;
    }
  const double cooling = std::pow(pace.cold / pace.hot, 1.0 / static_cast<double>(std::max<std::int64_t>(1, pace.steps)));
  double temperature = pace.hot;
  for (std::int64_t step = 0; ruin_.missing() > 0; ++step, temperature *= cooling) {
    if (step == pace.steps || effort.spent()) return false;
    ruin_.step(effort, temperature);
  }
  best_ = partition_.packings();
  return true;
}

}  // namespace hetsp::packing
