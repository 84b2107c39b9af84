#include "hetsp/packing/bisection.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "hetsp/packing/dive.h"
#include "hetsp/packing/surrogate_bound.h"

namespace hetsp::packing {

namespace {

constexpr double kClosed = 2e-4;        // relative: makespans nearer than that are not told apart
constexpr double kStep = 0.4;  // of the way from the proven makespan to the possible one: where probes lie
constexpr double kDown = 1.0 - 1e-9;    // of a makespan
constexpr double kElasticity = 1.1, kSafe = 0.999;  // T for the bound's ranks, as a power of their part; a little less
constexpr double kMuch = 0.25, kAgain = 0.99;  // of what lies between; of the makespan of the last dive before a verdict
constexpr double kLess = 0.4;           // of the way to T: the next probe where T got no verdict
constexpr std::int64_t kPatience = 160'000;  // visits of an item per type until then
constexpr int kTries = 3;                // smaller and smaller makespans that a cut off probe may refute
constexpr double kWorthwhile = 0.02;    // of the way to T, else a cut off probe is not cashed in
constexpr std::int64_t kLittle = 2'000'000;  // visits of an item by that
constexpr int kFew = 200;   // types to begin with
constexpr double kFiner = 2.5;  // how many times more of them each further level has
constexpr int kMany = 1500;  // types that no level exceeds
constexpr std::int64_t kFinest = 40'000, kVeryFinest = 2'000'000;  // visits of an item by one pricing

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
  type_of.resize(instance.items.size());
  for (int type = 0; type < types.size(); ++type)
    for (const auto item : types.members[type]) type_of[item] = type;
}

Bisection::Bisection(const Instance& instance)
    : instance_(instance), widths_(widths(instance.items)), dive_(instance), finest_(kFinest) {
  std::reverse(widths_.begin(), widths_.end());
  SurrogateMakespan surrogate = surrogate_makespan(instance);
  lower_ = surrogate.seconds;
  multipliers_ = std::move(surrogate.multipliers);
  done_ = instance.items.empty();
}

std::optional<Packing> Bisection::advance(Effort& effort, double upper, double gap) {
  found_.reset();
  best_ = upper;
  while (!done_ && !effort.spent() && lower_ * (1.0 + gap) < best_) {
    if (level_ == nullptr && !refine()) break;
    above_ = std::min(above_, best_), dive_above_ = std::min(dive_above_, best_);
    if (dive_.going()) {
      dive(effort);
    } else if (above_ - lower_ > kClosed * best_) {
      if (!(lower_ < probed_ && probed_ < above_)) {
        probed_ = lower_ + kStep * (above_ - lower_);
        cash_ = 1.0, since_ = level_->bound.work();
      }
      probe(effort, probed_);
    } else if (level_->plans == nullptr && dive_above_ - std::max(dive_below_, lower_) > kClosed * best_) {
      begin_dive(0.5 * (std::max(dive_below_, lower_) + dive_above_));
    } else {
      done_ = !refine();
    }
  }
  return std::move(found_);
}

void Bisection::offer(const Packing& packing) {
  offered_ = packing.bins;
  if (level_ != nullptr) level_->offered = false;
}

void Bisection::use_offer(double T) {
  if (level_->offered) return;
  level_->offered = true;
  for (const Bin& bin : offered_) {
    ConfigurationLp::Column column{bin.mode, 0.0, {}};
    std::vector<std::int32_t> types;
    for (const auto item : bin.items) types.push_back(level_->type_of[item]);
    std::sort(types.begin(), types.end());
    for (const auto type : types) {
      if (column.fill.empty() || column.fill.back().first != type) column.fill.emplace_back(type, 0);
      ++column.fill.back().second;
    }
    level_->bound.add_until(T, column);
    if (level_->plans) level_->plans->add_until(T, column);
  }
}

void Bisection::probe(Effort& effort, double T) {
  use_offer(T);
  ConfigurationLp& lp = level_->bound;
  const auto verdict = lp.solve(T, level_->types.count, instance_.ranks, effort, finest_);
  if (verdict == ConfigurationLp::Verdict::refuted) {
    lower_ = std::max(lower_, T * kDown);
  } else if (!effort.spent()) {
    unsure_ |= verdict == ConfigurationLp::Verdict::unknown;
    above_ = T;
    begin_dive(T);
  } else {
    cash_in(T);
    dive_later(T);
    if (lp.work() - since_ > kPatience * lp.types()) {
      probed_ = lower_ + kLess * (T - lower_);
      cash_ = 1.0, since_ = lp.work();
    }
    return;  // the same makespan again next time: its columns are kept
  }
  probed_ = 0.0;
}

// A probe that was cut off refutes smaller makespans: bounds of ranks fall about as fast as T rises.
void Bisection::cash_in(double T) {
  const double most = T * std::pow(level_->bound.bound() / instance_.ranks, kElasticity) * kSafe;
  for (int tries = 0; tries < kTries; ++tries, cash_ *= 0.5) {
    const double tried = lower_ + cash_ * (most - lower_);
    if (!(tried > lower_ + kWorthwhile * (T - lower_))) return;
    Effort little(kLittle);
    if (!level_->bound.centre_refutes(tried, level_->types.count, instance_.ranks, little, finest_)) continue;
    lower_ = tried * kDown;
    return;
  }
}

// The LP's value, though not its least one, says by when its columns do with the ranks: a dive there, where that is well below
// the best packing and below what was tried before.
void Bisection::dive_later(double T) {
  const double later = T * std::pow(level_->bound.value() / instance_.ranks, kElasticity);
  if (!(later < best_ - kMuch * (best_ - lower_) && later < kAgain * later_)) return;
  later_ = later;
  begin_dive(later);
}

void Bisection::begin_dive(double T) {
  dived_ = T, best_before_ = best_;
  dive_.begin(level_->types, T, best_);
}

void Bisection::dive(Effort& effort) {
  auto packing = dive_.advance(level_->plans ? *level_->plans : level_->bound, effort);
  if (packing && packing->makespan < best_) {
    best_ = packing->makespan;
    found_ = std::move(packing);
  }
  if (dive_.going()) return;
  if (best_ >= best_before_) dive_below_ = std::max(dive_below_, dived_);
  dive_above_ = std::min(dive_above_, best_);
}

// The next level, or the same with more thorough pricing. False where there is none.
bool Bisection::refine() {
  if (!widths_.empty()) {
    level_ = std::make_unique<Level>(instance_, widths_.back());
    if (lower_ > 0.0 && std::isfinite(lower_)) {
      SurrogateBound surrogate(instance_, level_->types);
      surrogate.set_multipliers(multipliers_);
      std::vector<double> profits;
      for (const Item& item : level_->types.item) profits.push_back(surrogate.profit(item, lower_ * (1.0 + 1e-6)));
      level_->bound.set_centre(std::move(profits));
    }
    widths_.pop_back();
  } else if (unsure_ && finest_ < kVeryFinest) {
    finest_ *= 8;
  } else {
    return false;
  }
  unsure_ = false, later_ = best_;
  above_ = dive_above_ = best_, dive_below_ = lower_;
  return true;
}

}  // namespace hetsp::packing
