#include "hetsp/packing/search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "hetsp/base/error.h"

namespace hetsp::packing {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kGreedyRounds = 10, kManyGreedyRounds = 40;  // before the local search begins
constexpr int kGreedyPerRefine = 2;
constexpr std::int64_t kManyBins = 100;
constexpr std::int64_t kHope = 16;  // ranks / kHope may be missing at first
constexpr std::int64_t kMemoryWork = 200'000, kMemoryWorkPerItem = 50'000, kMostMemoryWork = 40'000'000;
constexpr double kHot = 0.015;  // of the mean group's ranks: the first temperature
constexpr double kMostCut = 0.1, kLeastCut = 2e-4;
}  // namespace

Search::Search(const Instance& instance, std::uint64_t seed)
    : order_(instance),
      random_(seed),
      passes_(order_.instance, 1),
      prices_(order_.instance),
      refine_(order_.instance, 1, random_.next()),
      need_(order_.instance),
      steps_(std::clamp<std::int64_t>(4 * static_cast<std::int64_t>(instance.items.size()), 200, 4000)) {}

bool Search::take(const Packing& packing) {
  if (found_ && packing.makespan >= best_.makespan) return false;
  best_ = packing;
  best_original_ = order_.to_original(best_);
  found_ = fresh_ = true;
  return true;
}

const Packing& Search::best() const {
  invariant(found_, "search: best() before a packing was found");
  return best_original_;
}

void Search::offer(const Packing& packing) {
  check(order_.given, packing);
  take(order_.to_ordered(packing));
}

std::optional<Packing> Search::first() {
  if (found_) return best_original_;
  Effort unlimited;
  bound_ = prices_.rough_target(order_.instance.ranks);
  if (std::isinf(bound_) || total_tokens(order_.instance) > most_room(order_.instance) * (1.0 + 1e-9)) return std::nullopt;
  Greedy::Weights weights;
  double target = std::max(bound_, 1e-30) * 1.03, growth = 1.03;
  for (int tries = 0; tries < 20 && !found_; ++tries, target *= growth, growth *= 1.1) {
    weights.time_share = prices_.time_share();
    for (const double waste : {0.05, 0.4}) {
      weights.waste = waste;
      for (const bool nice : {false, true})
        if (!found_ && (!nice || passes_.has_nice()) && passes_.pack({target}, weights, nice, random_, unlimited, attempt_))
          take(attempt_[0]);
    }
  }
  Effort memory_effort(
      std::min(kMostMemoryWork, kMemoryWork + kMemoryWorkPerItem * static_cast<std::int64_t>(order_.instance.items.size())));
  if (!found_) by_memory(memory_effort);
  if (!found_) return std::nullopt;
  return best_original_;
}

// Without targets, only rooms matter. First by one pass each way, then by local search on the ranks that rooms need.
void Search::by_memory(Effort& effort) {
  for (int tries = 0; tries < 8 && !found_; ++tries) {
    Greedy::Weights weights;
    if (tries >= 4) weights = Greedy::Weights::draw(random_, order_.instance, prices_.time_share());
    weights.largest = tries % 2 == 0;
    if (passes_.pack({kInfinity}, weights, tries % 4 >= 2 && passes_.has_nice(), random_, effort, attempt_)) take(attempt_[0]);
  }
  if (!found_ && refine_.build({kInfinity}, {1'000'000'000, 2.0, 0.05}, effort)) take(refine_.best()[0]);
}

bool Search::greedy_round(Effort& effort, double floor) {
  const double before = best_.makespan;
  Greedy::Weights weights;
  weights.time_share = prices_.time_share();
  if (greedy_rounds_++ > 0) {
    if (!weights_.time_share.empty() && random_.chance(0.5))
      weights = weights_.near(random_);
    else
      weights = Greedy::Weights::draw(random_, order_.instance, prices_.time_share());
  }
  const bool nice = passes_.has_nice() && greedy_rounds_ % 2 == 0;
  double low = std::max(floor, bound_), high = best_.makespan * (1.0 - 1e-4);
  if (high <= low) return false;
  // Weights that do not even reach the best are not worth a bisection.
  if (!passes_.pack({high}, weights, nice, random_, effort, attempt_)) return false;
  take(attempt_[0]);
  high = std::min(high, attempt_[0].makespan);
  for (int step = 0; step < 10 && high - low > 5e-4 * high && !effort.spent(); ++step) {
    const double middle = 0.5 * (low + high);
    if (passes_.pack({middle}, weights, nice, random_, effort, attempt_)) {
      take(attempt_[0]);
      high = std::min(middle, attempt_[0].makespan);
    } else {
      low = middle;
    }
  }
  weights_ = std::move(weights);
  return best_.makespan < before;
}

double Search::lower_target(double floor) {
  std::vector<Sums> sums(best_.bins.size());
  std::int32_t largest = 0;
  for (std::size_t b = 0; b < sums.size(); ++b) {
    for (const auto i : best_.bins[b].items) sums[b].add(order_.instance.items[i]);
    largest = std::max(largest, order_.instance.modes[best_.bins[b].mode].ranks);
  }
  const std::int64_t hope = order_.instance.ranks + std::max<std::int64_t>(largest, order_.instance.ranks / kHope);
  for (;; cut_ *= 0.5) {
    const double target = std::max(floor, best_.makespan * (1.0 - cut_));
    if (cut_ <= kLeastCut || target == floor) return target;
    need_.set_target(target);
    std::int64_t ranks = 0;
    for (const Sums& set : sums) {
      const auto size = need_.least(set);
      ranks += size < need_.sizes() ? need_.ranks(size) : 2 * largest;
    }
    if (ranks <= hope) return target;
  }
}

bool Search::refine_round(Effort& effort, double floor) {
  const bool from_best = fresh_ || random_.chance(0.5);
  if (fresh_) refine_.start({best_}), fresh_ = false;
  const double target = lower_target(floor);
  const double hot = kHot * order_.instance.ranks / static_cast<double>(best_.bins.size());
  if (refine_.reach({target}, {steps_, hot, 0.1 * hot}, from_best, effort)) {
    const bool better = take(refine_.best()[0]);
    fresh_ = false;
    cut_ = std::min(kMostCut, cut_ * 1.5);
    return better;
  }
  if (effort.spent()) return false;  // no verdict on this target
  if (cut_ > kLeastCut) {
    cut_ = std::max(kLeastCut, cut_ * 0.5);
  } else {
    steps_ = std::min<std::int64_t>(steps_ * 2, 200'000);
    cut_ = 2e-3;
  }
  return false;
}

bool Search::improve(Effort& effort, double stop_at) {
  if (!first()) return false;
  const double before = best_.makespan;
  while (!effort.spent() && best_.makespan > stop_at && best_.makespan > 0.0) {
    effort.spend(1);
    greedy_round(effort, stop_at);
    // Where items are many, passes keep finding better packings; where they are few, local search finds all there is.
    const std::int64_t passes = static_cast<std::int64_t>(best_.bins.size()) < kManyBins ? kGreedyRounds : kManyGreedyRounds;
    if (greedy_rounds_ >= passes && greedy_rounds_ % kGreedyPerRefine == 0 && !effort.spent()) refine_round(effort, stop_at);
  }
  return best_.makespan < before;
}

}  // namespace hetsp::packing
