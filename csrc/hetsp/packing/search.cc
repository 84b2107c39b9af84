#include "hetsp/packing/search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "hetsp/base/error.h"

namespace hetsp::packing {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kGreedyRounds = 10;             // before the local search begins
constexpr std::int64_t kMemoryWork = 200'000, kMemoryWorkPerItem = 50'000, kMostMemoryWork = 40'000'000;
constexpr double kHot = 0.015;  // of the mean group's ranks: the first temperature
constexpr double kMostCut = 0.1, kLeastCut = 2e-4;
}  // namespace

Search::Search(const Instance& instance, std::uint64_t seed)
    : order_(instance),
      random_(seed),
      greedy_(order_.instance, 1),
      prices_(order_.instance),
      refine_(order_.instance, 1, random_.next()),
      steps_(std::clamp<std::int64_t>(4 * static_cast<std::int64_t>(instance.items.size()), 200, 4000)) {
  const std::int32_t node = instance.ranks_per_node;
  if (node <= 1) return;
  nice_.instance = order_.instance;
  nice_.instance.modes.clear();
  for (std::size_t m = 0; m < instance.modes.size(); ++m) {
    const std::int32_t ranks = instance.modes[m].ranks;
    if (ranks < node ? node % ranks != 0 : ranks % node != 0) continue;
    nice_.instance.modes.push_back(instance.modes[m]);
    nice_.mode.push_back(static_cast<std::int32_t>(m));
  }
  if (!nice_.mode.empty()) nice_.greedy = std::make_unique<Greedy>(nice_.instance, 1);
}

// About the least T by which fractions of the items can be packed. 0 where they take no time; infinite where one fits nowhere.
double Search::rough_bound() {
  const Instance& all = order_.instance;
  Need need(all);
  const auto refuted = [&](double target) {
    need.set_target(target);
    return prices_.descend(need, 3) > all.ranks;
  };
  double low = 0.0;
  for (const Item& item : all.items) low += all.modes.front().seconds(item) * all.modes.front().ranks / all.ranks;
  if (low <= 0.0) return 0.0;
  while (low > 1e-30 && !refuted(low)) low *= 0.5;
  double high = low * 1.3;
  while (refuted(high)) {
    if (high > 1e30) return kInfinity;
    low = high, high *= 1.3;
  }
  while (high > 1.01 * low) {
    const double middle = 0.5 * (low + high);
    (refuted(middle) ? low : high) = middle;
  }
  return high;
}

bool Search::greedy_pass(double target, const Greedy::Weights& weights, bool nice, Effort& effort) {
  if (!nice) return greedy_.pack({target}, weights, random_, effort, attempt_);
  Greedy::Weights fewer = weights;
  for (std::size_t m = 0; m < nice_.mode.size(); ++m) {
    if (!weights.time_share.empty()) fewer.time_share[m] = weights.time_share[nice_.mode[m]];
    if (!weights.per_mode.empty()) fewer.per_mode[m] = weights.per_mode[nice_.mode[m]];
  }
  if (!nice_.greedy->pack({target}, fewer, random_, effort, attempt_)) return false;
  for (Bin& bin : attempt_[0].bins) bin.mode = nice_.mode[bin.mode];
  return true;
}

bool Search::take(const Packing& packing) {
  if (found_ && packing.makespan >= best_.makespan) return false;
  std::vector<std::int32_t> ranks;
  for (const Bin& bin : packing.bins) ranks.push_back(order_.instance.modes[bin.mode].ranks);
  if (!places(order_.instance, ranks)) return false;
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
  bound_ = rough_bound();
  double rooms = 0.0, tokens = 0.0;  // the most that all ranks hold
  for (const Mode& mode : order_.instance.modes)
    rooms = std::max(rooms, static_cast<double>(mode.room) * order_.instance.ranks / mode.ranks);
  for (const Item& item : order_.instance.items) tokens += static_cast<double>(item.tokens);
  if (std::isinf(bound_) || tokens > rooms * (1.0 + 1e-9)) return std::nullopt;
  Greedy::Weights weights;
  double target = std::max(bound_, 1e-30) * 1.03, growth = 1.03;
  for (int tries = 0; tries < 20 && !found_; ++tries, target *= growth, growth *= 1.1) {
    weights.time_share = prices_.time_share();
    for (const double waste : {0.05, 0.4}) {
      weights.waste = waste;
      for (const bool nice : {false, true})
        if (!found_ && (!nice || nice_.greedy != nullptr) && greedy_pass(target, weights, nice, unlimited)) take(attempt_[0]);
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
    if (greedy_pass(kInfinity, weights, tries % 4 >= 2 && nice_.greedy != nullptr, effort)) take(attempt_[0]);
  }
  if (!found_ && refine_.build({kInfinity}, {1'000'000'000, 2.0, 0.05}, effort)) take(refine_.best()[0]);
}

bool Search::greedy_round(Effort& effort, double floor) {
  const double before = best_.makespan;
  Greedy::Weights weights;
  weights.time_share = prices_.time_share();
  if (greedy_rounds_++ > 0) weights = Greedy::Weights::draw(random_, order_.instance, prices_.time_share());
  const bool nice = nice_.greedy != nullptr && greedy_rounds_ % 2 == 0;
  double low = std::max(floor, bound_), high = best_.makespan * (1.0 - 1e-4);
  if (high <= low) return false;
  // Weights that do not even reach the best are not worth a bisection.
  if (!greedy_pass(high, weights, nice, effort)) return false;
  take(attempt_[0]);
  high = std::min(high, attempt_[0].makespan);
  for (int step = 0; step < 10 && high - low > 5e-4 * high && !effort.spent(); ++step) {
    const double middle = 0.5 * (low + high);
    if (greedy_pass(middle, weights, nice, effort)) {
      take(attempt_[0]);
      high = std::min(middle, attempt_[0].makespan);
    } else {
      low = middle;
    }
  }
  return best_.makespan < before;
}

bool Search::refine_round(Effort& effort, double floor) {
  const bool from_best = fresh_ || random_.chance(0.5);
  if (fresh_) refine_.start({best_}), fresh_ = false;
  const double target = std::max(floor, best_.makespan * (1.0 - cut_));
  const double hot = kHot * order_.instance.ranks / static_cast<double>(best_.bins.size());
  if (refine_.reach({target}, {steps_, hot, 0.1 * hot}, from_best, effort)) {
    const bool better = take(refine_.best()[0]);
    fresh_ = false;
    cut_ = std::min(kMostCut, cut_ * 1.5);
    return better;
  }
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
    if (greedy_rounds_ < kGreedyRounds) {
      greedy_round(effort, stop_at);
      effort.spend(1);
    } else {
      refine_round(effort, stop_at);
      effort.spend(1);
    }
  }
  return best_.makespan < before;
}

}  // namespace hetsp::packing
