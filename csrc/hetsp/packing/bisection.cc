#include "hetsp/packing/bisection.h"

#include <algorithm>

#include "hetsp/packing/dive.h"
#include "hetsp/packing/surrogate_bound.h"

namespace hetsp::packing {

namespace {

constexpr double kClosed = 2e-4;        // relative: makespans nearer than that are not told apart
constexpr double kFirst = 0.005;  // how far below the best packing the first probe lies: often feasible, and a dive wins
constexpr double kCoarseStep = 0.3;     // of the way up from the proven makespan, with coarse types
constexpr int kFew = 40;   // types to begin with
constexpr double kFiner = 2.5;  // how many times more of them each further level has
constexpr int kMany = 1500;  // types that no level exceeds
constexpr std::int64_t kFinest = 30'000, kVeryFinest = 2'000'000;  // visits of an item by one pricing

// Widths from the coarsest, each level with at most kFiner times more types.
std::vector<double> widths(const std::vector<Item>& items) {
  std::vector<double> chosen;
  double most = kFew;
  double width = 0.32;
  for (const double next : {0.16, 0.08, 0.04, 0.02, 0.01, 0.005, 0.0025, 0.001, 0.0}) {
    const int types = make_types(items, next).size();
    if (types > most) chosen.push_back(width), most *= kFiner;
    if (types > kMany) return chosen;
    width = next;
  }
  chosen.push_back(0.0);
  return chosen;
}

}  // namespace

Bisection::Level::Level(const Instance& instance, double width)
    : types(make_types(instance.items, width)), bound(instance.modes, types.item) {
  if (width > 0.0) plans = std::make_unique<ConfigurationLp>(instance.modes, types.largest);
}

Bisection::Bisection(const Instance& instance) : instance_(instance), widths_(widths(instance.items)), finest_(kFinest) {
  std::reverse(widths_.begin(), widths_.end());
  lower_ = surrogate_makespan(instance).seconds;
  done_ = instance.items.empty();
}

std::optional<Packing> Bisection::advance(Effort& effort, double upper, double gap) {
  found_.reset();
  best_ = upper;
  while (!done_ && !effort.spent() && lower_ * (1.0 + gap) < best_) {
    if (level_ == nullptr && !refine()) break;
    above_ = std::min(above_, best_), dive_above_ = std::min(dive_above_, best_);
    if (above_ - lower_ > kClosed * best_) {
      // Coarse types are for the bound, which low makespans raise soonest; exact ones begin where a dive may win as well.
      const double between = above_ - lower_;
      probe(effort, level_->plans ? lower_ + kCoarseStep * between
                    : first_      ? std::max(lower_ + 0.1 * between, (1.0 - kFirst) * above_)
                                  : lower_ + 0.5 * between);
    } else if (dive_above_ - std::max(dive_below_, lower_) > kClosed * best_) {
      descend(effort);
    } else {
      done_ = !refine();
    }
  }
  return std::move(found_);
}

void Bisection::probe(Effort& effort, double T) {
  const auto verdict = level_->bound.solve(T, level_->types.count, instance_.ranks, effort, finest_);
  if (verdict == ConfigurationLp::Verdict::refuted) {
    lower_ = std::max(lower_, T * (1.0 - 1e-9));
  } else if (!effort.spent()) {
    unsure_ |= verdict == ConfigurationLp::Verdict::unknown;
    above_ = T;
    try_dive(effort, T);
  } else {
    return;  // the same makespan again next time: its columns are kept
  }
  first_ = false;
}

// Dives between the bound and the best packing.
void Bisection::descend(Effort& effort) {
  const double T = 0.5 * (std::max(dive_below_, lower_) + dive_above_), before = best_;
  try_dive(effort, T);
  if (effort.spent()) return;
  if (best_ >= before) dive_below_ = T;
  dive_above_ = std::min(dive_above_, best_);
}

void Bisection::try_dive(Effort& effort, double T) {
  ConfigurationLp& lp = level_->plans ? *level_->plans : level_->bound;
  auto packing = dive(instance_, level_->types, lp, T, effort);
  if (!packing || packing->makespan >= best_) return;
  best_ = packing->makespan;
  found_ = std::move(packing);
}

// The next level, or the same with more thorough pricing. False where there is none.
bool Bisection::refine() {
  if (!widths_.empty()) {
    level_ = std::make_unique<Level>(instance_, widths_.back());
    widths_.pop_back();
  } else if (unsure_ && finest_ < kVeryFinest) {
    finest_ *= 8;
  } else {
    return false;
  }
  unsure_ = false;
  above_ = dive_above_ = best_, dive_below_ = lower_;
  return true;
}

}  // namespace hetsp::packing
