#include "hetsp/packing/batch_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "hetsp/base/error.h"
#include "hetsp/packing/batch_parts.h"
#include "hetsp/packing/search.h"
#include "hetsp/packing/sorted_cut.h"

namespace hetsp::packing {

namespace {
constexpr int kCounts = 5;         // counts of micro-batches that are tried, from the least that memory allows
constexpr int kLarge = 16;         // micro-batches from which on parts are planned
constexpr int kMostCounts = 1024;  // until one is feasible
constexpr int kGreedyRounds = 40;  // of a count before its local search begins
constexpr double kNear = 1.08;  // of the best: a count that is worse after a few rounds waits
constexpr int kGreedyPerRefine = 10;
constexpr std::int64_t kStartWork = 20'000;  // per micro-batch: Search on a part of the sorted cut
constexpr double kHot = 0.015;               // of the mean group's ranks: the first temperature
constexpr double kMostCut = 0.05, kLeastCut = 1e-4;
constexpr std::int64_t kLeastSteps = 150, kMostSteps = 50'000;
}  // namespace

BatchSearch::BatchSearch(const Instance& instance, double fixed_seconds, int micro_batches, std::uint64_t seed)
    : order_(instance), fixed_(fixed_seconds), random_(seed), prices_(order_.instance) {
  require(std::isfinite(fixed_seconds) && fixed_seconds >= 0.0, "packing: fixed_seconds is ", fixed_seconds,
          ", must be finite and at least 0");
  require(0 <= micro_batches && micro_batches <= kMostCounts, "packing: micro_batches is ", micro_batches, ", must be in 0..",
          kMostCounts);
  const double least = std::ceil(total_tokens(order_.instance) / std::max(1.0, most_room(order_.instance)) * (1.0 - 1e-12));
  if (least > kMostCounts) return;
  const int fewest = std::max(1, static_cast<int>(least));
  const int items = std::max(1, static_cast<int>(std::min<std::size_t>(instance.items.size(), kMostCounts)));
  const int most = std::min(items, micro_batches == 0 ? fewest + kCounts - 1 : micro_batches);
  for (int k = std::max(fewest, most - kCounts + 1); k <= most; ++k) counts_.emplace_back().micro_batches = k;
  may_add_ = micro_batches == 0;
}

BatchSearch::~BatchSearch() = default;

double BatchSearch::cost(const std::vector<Packing>& micro_batches) const {
  double sum = 0.0;
  for (const Packing& packing : micro_batches)
    if (!packing.bins.empty()) sum += packing.makespan + fixed_;
  return sum;
}

bool BatchSearch::take(Count& count, std::vector<Packing> micro_batches) {
  const double seconds = cost(micro_batches);
  if (count.found && seconds >= count.seconds) return false;
  std::stable_sort(micro_batches.begin(), micro_batches.end(),
                   [](const Packing& a, const Packing& b) { return a.makespan > b.makespan; });
  micro_batches.resize(count.micro_batches);
  count.best = std::move(micro_batches);
  count.seconds = seconds;
  count.found = count.fresh = true;
  if (found_ && seconds >= best_seconds_) return true;
  found_ = true;
  best_seconds_ = seconds;
  best_.clear();
  for (const Packing& packing : count.best)
    if (!packing.bins.empty()) best_.push_back(order_.to_original(packing));
  return true;
}

const std::vector<Packing>& BatchSearch::best() const {
  invariant(found_, "batch search: best() before packings were found");
  return best_;
}

void BatchSearch::offer(const std::vector<Packing>& micro_batches) {
  // Each alone is checked as a packing of its own items, all together as holding every item once.
  std::vector<std::int8_t> seen(order_.given.items.size(), 0);
  std::vector<Packing> ordered;
  for (const Packing& packing : micro_batches) {
    Instance part = order_.given;
    part.items.clear();
    Packing renumbered = packing;
    for (Bin& bin : renumbered.bins)
      for (auto& i : bin.items) {
        require(0 <= i && i < static_cast<std::int64_t>(seen.size()), "packing: a bin holds item ", i, ", there are ",
                seen.size());
        require(!seen[i], "packing: item ", i, " is in two bins");
        seen[i] = 1;
        part.items.push_back(order_.given.items[i]);
        i = static_cast<std::int32_t>(part.items.size()) - 1;
      }
    check(part, renumbered);
    if (!packing.bins.empty()) ordered.push_back(order_.to_ordered(packing));
  }
  for (std::size_t i = 0; i < seen.size(); ++i) require(seen[i], "packing: item ", i, " is in no micro-batch");
  for (Count& count : counts_)
    if (count.micro_batches == static_cast<int>(ordered.size())) {
      take(count, ordered);
      return;
    }
  require(ordered.size() <= kMostCounts, "packing: ", ordered.size(), " micro-batches, at most ", kMostCounts, " are allowed");
  counts_.emplace_back().micro_batches = static_cast<int>(ordered.size());
  take(counts_.back(), ordered);
}

// Packs the parts of the sorted cut; where one cannot be, all at once without targets.
bool BatchSearch::start(Count& count, Effort& effort) {
  const auto ends = sorted_cut(order_.instance, count.micro_batches);
  std::vector<Packing> packings;
  Instance part = order_.instance;
  std::int32_t begin = 0;
  for (const auto end : ends) {
    part.items.assign(order_.instance.items.begin() + begin, order_.instance.items.begin() + end);
    Search search(part, random_.next());
    if (!search.first()) break;
    packings.push_back(search.best());
    for (Bin& bin : packings.back().bins)
      for (auto& i : bin.items) i += begin;
    begin = end;
  }
  if (packings.size() == ends.size()) return take(count, packings);
  // The parts may be too unequal for what fits a room: only all together can tell.
  const std::vector<double> none(count.micro_batches, std::numeric_limits<double>::infinity());
  Greedy::Weights weights;
  for (const bool largest : {true, false})
    for (const bool nice : {false, true}) {
      weights.largest = largest;
      if (!count.found && (!nice || count.passes->has_nice()) &&
          count.passes->pack(none, weights, nice, random_, effort, attempt_))
        take(count, attempt_);
    }
  return count.found;
}

std::optional<std::vector<Packing>> BatchSearch::first() {
  Effort unlimited;
  if (order_.instance.items.empty() && !found_) {
    found_ = true;
    counts_.clear();
  }
  const auto items = static_cast<int>(std::min<std::size_t>(order_.instance.items.size(), kMostCounts));
  for (std::size_t c = 0; c < counts_.size() && !found_; ++c) {
    Count& count = counts_[c];
    count.passes = std::make_unique<Passes>(order_.instance, count.micro_batches);
    start(count, unlimited);
    // Memory that is cut into rooms may need far more micro-batches than its sum says.
    const int next = std::min(items, count.micro_batches + std::max(1, count.micro_batches / 2));
    if (!found_ && may_add_ && c + 1 == counts_.size() && next > count.micro_batches)
      counts_.emplace_back().micro_batches = next;
  }
  if (!found_) return std::nullopt;
  return best_;
}

// A pass over all micro-batches with targets in some proportion: that of the best packings more or less levelled, or that of
// the best pass with one target moved. A pass that does not reach what is known ends there; else bisection finds how far it
// goes.
bool BatchSearch::greedy_round(Count& count, Effort& effort) {
  const bool again = !count.shape.empty() && random_.chance(0.6);
  std::vector<double> shape = count.shape;
  if (!again) {
    const double power = count.greedy_rounds == 0 ? 1.0 : 1.6 * random_.uniform();
    shape.clear();
    for (const Packing& packing : count.best)
      shape.push_back(std::pow(std::max(packing.makespan, 1e-3 * count.seconds), power));
  }
  const double fixed = fixed_ * count.micro_batches, known = count.shape.empty() ? count.seconds * 1.02 : count.greedy_seconds;
  double high = (known - fixed) * (1.0 - 1e-4), low = 0.7 * high, sum = 0.0;
  for (const double x : shape) sum += x;
  if (count.greedy_rounds > 2) {
    double& moved = shape[random_.below(count.micro_batches)];
    const double before = moved, point = breakpoint(count);
    if (random_.chance(0.4) && point < high && count.micro_batches > 1)
      moved = (sum - before) * point / (high - point);  // such that its target is the point
    else
      moved *= random_.between(0.6, 1.7);
    sum += moved - before;
  }
  Greedy::Weights weights;
  weights.time_share = prices_.time_share();
  if (again && random_.chance(0.7))
    weights = random_.chance(0.5) ? count.weights : count.weights.near(random_);
  else if (count.greedy_rounds > 0)
    weights = Greedy::Weights::draw(random_, order_.instance, prices_.time_share());
  const bool nice = count.passes->has_nice() && count.greedy_rounds % 2 == 0;
  ++count.greedy_rounds;
  const auto reaches = [&](double total) {
    std::vector<double> targets;
    for (const double x : shape) targets.push_back(x * total / sum);
    // Items that take no time leave proportions without a meaning.
    if (!std::all_of(targets.begin(), targets.end(), [](double T) { return T > 0.0 && std::isfinite(T); })) return false;
    return count.passes->pack(targets, weights, nice, random_, effort, attempt_);
  };
  if (!(high > 0.0) || !reaches(high)) return false;
  bool better = take(count, attempt_);
  count.greedy_seconds = cost(attempt_);
  for (int step = 0; step < 8 && !effort.spent(); ++step) {
    const double middle = 0.5 * (low + high);
    if (reaches(middle)) {
      better |= take(count, attempt_);
      count.greedy_seconds = std::min(count.greedy_seconds, cost(attempt_));
      high = middle;
    } else {
      low = middle;
    }
  }
  count.weights = std::move(weights);
  count.shape = std::move(shape);
  return better;
}

double BatchSearch::breakpoint(const Count& count) {
  const auto items = static_cast<std::int64_t>(order_.instance.items.size());
  const std::int32_t among = random_.below(std::min<std::int64_t>(items, 12 * count.micro_batches)) + 1;
  const auto& modes = order_.instance.modes;
  const auto mode = random_.below(static_cast<std::int64_t>(modes.size()));
  return modes[mode].seconds(order_.instance.items[random_.below(among)]) * (1.0 + 1e-9);
}

// Targets whose sum is `by` seconds below the best: of one micro-batch alone, of all in proportion, of one at the cost of
// another, or with one at a breakpoint.
std::vector<double> BatchSearch::lower_targets(const Count& count, double by) {
  std::vector<double> targets;
  double sum = 0.0;
  for (const Packing& packing : count.best) targets.push_back(packing.makespan), sum += packing.makespan;
  const int down = random_.below(count.micro_batches), up = random_.below(count.micro_batches);
  const double kind = random_.uniform();
  const double point = breakpoint(count), others = sum - targets[down];
  if (kind < 0.15 && others > 0.0 && point < sum - by) {
    for (double& t : targets) t *= (sum - by - point) / others;
    targets[down] = point;
  } else if (kind < 0.4 || count.micro_batches == 1) {
    for (double& t : targets) t *= 1.0 - by / sum;
  } else if (kind < 0.65 || down == up) {
    targets[down] -= by;
  } else {
    const double more = by * random_.between(0.5, 30.0);
    targets[down] -= by + more;
    targets[up] += more;
  }
  for (double& t : targets) t = std::max(t, 1e-9 * sum);
  return targets;
}

bool BatchSearch::refine_round(Count& count, Effort& effort, double stop_at) {
  if (count.refine == nullptr) {
    count.refine = std::make_unique<Refine>(order_.instance, count.micro_batches, random_.next());
    count.steps = kLeastSteps;
  }
  if (count.fresh) count.refine->start(count.best), count.fresh = false;
  std::int64_t ranks = 0, bins = 0;
  for (const Packing& packing : count.best)
    for (const Bin& bin : packing.bins) ranks += order_.instance.modes[bin.mode].ranks, ++bins;
  const double hot = kHot * static_cast<double>(ranks) / static_cast<double>(std::max<std::int64_t>(1, bins));
  const double by = std::min(count.cut * count.seconds, std::max(count.seconds - stop_at, 0.0));
  if (count.refine->reach(lower_targets(count, by), {count.steps, hot, 0.1 * hot}, true, effort)) {
    const bool better = take(count, count.refine->best());
    count.cut = std::min(kMostCut, count.cut * 1.3);
    return better;
  }
  count.cut *= 0.85;
  if (count.cut < kLeastCut) {
    count.cut = 20.0 * kLeastCut;
    count.steps = std::min(kMostSteps, count.steps * 2);
  }
  return false;
}

// The count to work on: mostly the best, now and then another, the rarer the worse it stands.
BatchSearch::Count& BatchSearch::choose() {
  for (const int rounds : {kGreedyRounds / 4, kGreedyRounds})
    for (Count& count : counts_)
      if (count.found && count.greedy_rounds < rounds && (rounds < kGreedyRounds || count.seconds < kNear * best_seconds_))
        return count;
  Count* chosen = nullptr;
  double best = std::numeric_limits<double>::infinity();
  for (Count& count : counts_) {
    if (!count.found) continue;
    const double score = (count.seconds / best_seconds_ - 1.0) + 0.02 * -std::log(1.0 - random_.uniform());
    if (score < best) best = score, chosen = &count;
  }
  invariant(chosen != nullptr, "batch search: no count of micro-batches has packings");
  return *chosen;
}

// With one Count, the best there is.
void BatchSearch::improve_parts(Effort& effort, double stop_at) {
  const auto take_all = [&](std::vector<Packing> all) {
    Count count;
    count.micro_batches = static_cast<int>(all.size());
    take(count, std::move(all));
  };
  if (parts_ == nullptr) {
    parts_ = std::make_unique<BatchParts>(order_.instance, fixed_, random_.next());
    auto dealt = parts_->deal(counts_.front().micro_batches, effort);
    if (dealt && (may_add_ || std::ssize(*dealt) <= counts_.back().micro_batches)) take_all(std::move(*dealt));
  }
  std::vector<Packing> all;
  for (const Packing& packing : best_) all.push_back(order_.to_ordered(packing));
  while (!effort.spent() && best_seconds_ > stop_at)
    if (parts_->improve(all, effort)) take_all(all);
}

bool BatchSearch::improve(Effort& effort, double stop_at) {
  if (!first() || counts_.empty()) return false;
  const double before = best_seconds_;
  if (counts_.front().micro_batches >= kLarge) {
    improve_parts(effort, stop_at);
    return best_seconds_ < before;
  }
  for (Count& count : counts_) {
    if (count.passes == nullptr) count.passes = std::make_unique<Passes>(order_.instance, count.micro_batches);
    if (count.found || effort.spent() || best_seconds_ <= stop_at) continue;
    start(count, effort);
    effort.spend(kStartWork);
  }
  if (std::isfinite(prices_.rough_target(static_cast<std::int64_t>(order_.instance.ranks) * counts_.front().micro_batches)))
    while (!effort.spent() && best_seconds_ > stop_at) {
      Count& count = choose();
      effort.spend(1);
      const bool early = count.greedy_rounds < kGreedyRounds;
      for (int j = 0; j < (early ? 1 : kGreedyPerRefine); ++j) greedy_round(count, effort);
      if (!early) refine_round(count, effort, stop_at);
    }
  return best_seconds_ < before;
}

}  // namespace hetsp::packing
