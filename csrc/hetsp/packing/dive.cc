#include "hetsp/packing/dive.h"

#include <algorithm>
#include <cmath>

namespace hetsp::packing {

namespace {

constexpr std::size_t kAtOnce = 8;        // columns of the solution per one that is fixed at once
constexpr double kNearlyWhole = 0.8;      // fixed in any case
constexpr double kBegin = 1.01;          // of the ranks: columns for that many are found before any is fixed
constexpr int kFew = 100;                // types up to which new columns for the smaller needs come soon enough
constexpr double kAnyRanks = 1e9;        // where types are many, those that are known must do afterwards
constexpr double kHot = 0.015;            // of the mean group's ranks: the first temperature
constexpr int kTargets = 16;              // between the dive's makespan and the best known
constexpr double kLater = 0.25;           // of the way to the best known: the next target
constexpr int kTries = 3;                 // later targets
constexpr std::int64_t kHope = 32;        // ranks / kHope may be missing at first
constexpr std::int64_t kSteps = 1'000;    // of local search for each of them
constexpr double kFar = 1.5;              // of the dive's makespan: where none is known

}  // namespace

Dive::Dive(const Instance& instance) : order_(instance), refine_(order_.instance, 1, 0), need_of_(order_.instance) {}

void Dive::begin(const ItemTypes& types, double T, double upper) {
  types_ = &types, T_ = T, upper_ = std::min(upper, kFar * T);
  need_ = types.count, budget_ = order_.given.ranks;
  bins_.clear();
  stage_ = Stage::fixing;
}

// One group with the column's content, as far as it is still needed. False where nothing of it is.
bool Dive::fix(const ConfigurationLp::Column& column) {
  const Mode& mode = order_.given.modes[column.mode];
  Bin bin{column.mode, {}};
  std::int64_t tokens = 0;
  for (const auto& [type, count] : column.fill)
    for (int times = std::min(count, need_[type]); times > 0; --times) {
      const auto item = types_->members[type][need_[type] - 1];
      if (tokens + order_.given.items[item].tokens > mode.room) break;
      tokens += order_.given.items[item].tokens;
      bin.items.push_back(item);
      --need_[type];
    }
  if (bin.items.empty()) return false;
  budget_ -= mode.ranks;
  bins_.push_back(std::move(bin));
  return true;
}

// Fixes columns until every item has a group. False where the effort or the columns end first.
bool Dive::fix_all(ConfigurationLp& lp, Effort& effort) {
  while (std::any_of(need_.begin(), need_.end(), [](std::int32_t n) { return n > 0; })) {
    (void)lp.solve(T_, need_, bins_.empty() ? kBegin * budget_ : lp.types() <= kFew ? budget_ : kAnyRanks, effort);
    if (effort.spent()) return false;
    auto solution = lp.solution();
    std::stable_sort(solution.begin(), solution.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    bool whole = false;
    for (const auto& [column, x] : solution)
      for (int times = static_cast<int>(std::floor(x + 1e-6)); times > 0; --times) whole |= fix(column);
    if (whole) continue;
    // The nearest to whole ones; several at once, since local search mends what a hasty choice costs.
    std::size_t left = std::max<std::size_t>(1, solution.size() / kAtOnce);
    bool any = false;
    for (const auto& [column, x] : solution) {
      if (left == 0 && x < kNearlyWhole) break;
      if (!fix(column)) continue;
      any = true, left -= left > 0 ? 1 : 0;
    }
    if (!any) {
      stage_ = Stage::done;
      return false;
    }
  }
  return true;
}

// The least of some targets from T on by which the groups take few more ranks than there are.
double Dive::hopeful_target() {
  std::vector<Sums> sums(bins_.size());
  for (std::size_t b = 0; b < bins_.size(); ++b)
    for (const auto i : bins_[b].items) sums[b].add(order_.given.items[i]);
  for (int step = 0; step < kTargets; ++step) {
    const double target = T_ + (upper_ - T_) * step / kTargets;
    need_of_.set_target(target);
    std::int64_t ranks = 0;
    for (const Sums& set : sums) {
      const auto size = need_of_.least(set);
      ranks += size < need_of_.sizes() ? need_of_.ranks(size) : order_.given.ranks;
    }
    if (ranks <= order_.given.ranks + std::max<std::int64_t>(1, order_.given.ranks / kHope)) return target;
  }
  return upper_;
}

std::optional<Packing> Dive::advance(ConfigurationLp& lp, Effort& effort) {
  if (stage_ == Stage::fixing) {
    if (!fix_all(lp, effort)) return std::nullopt;
    std::vector<std::int32_t> ranks;
    for (const Bin& bin : bins_) ranks.push_back(order_.given.modes[bin.mode].ranks);
    Packing packing{bins_, makespan(order_.given, bins_)};
    stage_ = Stage::done;
    if (places(order_.given, ranks)) return packing;
    refine_.start({order_.to_ordered(packing)});
    stage_ = Stage::winning;
    target_ = hopeful_target(), tries_ = 0;
  }
  // Too many ranks: local search wins them back, by a later target where it does not.
  const double hot = kHot * order_.given.ranks / static_cast<double>(bins_.size());
  for (; stage_ == Stage::winning && target_ < upper_; target_ += kLater * (upper_ - target_), ++tries_) {
    if (refine_.reach({target_}, {kSteps, hot, 0.1 * hot}, tries_ == 0, effort)) {
      stage_ = Stage::done;
      return order_.to_original(refine_.best()[0]);
    }
    if (effort.spent()) return std::nullopt;
    if (tries_ == kTries) break;
  }
  stage_ = Stage::done;
  return std::nullopt;
}

}  // namespace hetsp::packing
