#include "hetsp/packing/batch_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "hetsp/packing/area_bound.h"

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTolerance = 1e-9;
constexpr double kRatios[] = {1.02, 1.007, 1.0025};  // of the costs of neighbouring levels, one grid after the other
constexpr double kFirstOfMany = 1.007;  // where choices are mixtures of levels anyway, coarse ones tell little
constexpr int kTypes = 200;
constexpr std::size_t kRows = 60;   // the newest ones stay
constexpr int kFew = 3;             // micro-batches that are enumerated
constexpr std::size_t kHosts = 8;   // kinds of host that are told apart
constexpr double kRefuted = 1e-7;   // by how much a ratio must be above 1

double width_for(const std::vector<Item>& items) {
  for (const double width : {0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08})
    if (make_types(items, width).size() <= kTypes) return width;
  return 0.16;
}

}  // namespace

BatchBound::BatchBound(const Instance& instance, double fixed_seconds, int micro_batches, std::vector<double> makespans)
    : instance_(instance),
      ranks_(instance.ranks),
      fixed_(fixed_seconds),
      upper_(0.0),
      most_(micro_batches),
      shape_(std::move(makespans)) {
  std::sort(shape_.rbegin(), shape_.rend());
  for (const double T : shape_) upper_ += T + fixed_;
  done_ = instance.items.empty();
  if (done_) return;
  double per_rank = 0.0, tokens = 0.0;
  for (const Mode& mode : instance.modes) per_rank = std::max(per_rank, static_cast<double>(mode.room) / mode.ranks);
  for (const Item& item : instance.items) tokens += static_cast<double>(item.tokens);
  if (tokens > 0.0) fewest_ = std::max(1, static_cast<int>(std::ceil(tokens / (per_rank * ranks_) * (1.0 - 1e-12))));
  if (most_ == 0) most_ = static_cast<int>(instance.items.size());
  most_ = std::max(most_, fewest_);

  const ItemTypes all = make_types(instance.items);
  const AreaBound area(instance, all);
  area_ = area.area(kInfinity);
  double shortest = 0.0;  // of the item that takes the longest even in its fastest mode
  int longest = 0;
  for (int i = 0; i < all.size(); ++i)
    if (area.shortest(i) > shortest) shortest = area.shortest(i), longest = i;
  longest_ = all.item[longest];
  lower_ = std::max(area_ / ranks_, shortest) * (1.0 - kTolerance) + fewest_ * fixed_;
  hosts_ = hosts();
  few_ = fewest_ > kFew ? kInfinity : lower_;
  many_ = most_ <= kFew ? kInfinity : lower_ + std::max(0, kFew + 1 - fewest_) * fixed_;
  std::vector<Item> others;
  for (std::size_t i = 0; i < instance.items.size(); ++i)
    if (static_cast<std::int32_t>(i) != all.members[longest].front()) others.push_back(instance.items[i]);
  types_ = make_types(others, width_for(others));
  pool_prices_ =
      std::make_unique<PoolPrices>(instance.modes, types_.item, std::vector<double>(types_.count.begin(), types_.count.end()));
}

// One per mode that holds the longest item or, where these are many, per run of neighbouring modes.
std::vector<BatchBound::Host> BatchBound::hosts() const {
  std::vector<std::int32_t> modes;
  for (std::size_t k = 0; k < instance_.modes.size(); ++k)
    if (instance_.modes[k].room >= longest_.tokens) modes.push_back(static_cast<std::int32_t>(k));
  const std::size_t run = (modes.size() + kHosts - 1) / kHosts;
  std::vector<Host> found;
  for (std::size_t k = 0; k < modes.size(); ++k) {
    const Mode& mode = instance_.modes[modes[k]];
    const auto ranks = static_cast<double>(mode.ranks);
    if (k % run == 0) found.push_back({{}, ranks, mode.seconds(longest_)});
    Host& host = found.back();
    host.modes.push_back(modes[k]);
    host.ranks = std::min(host.ranks, ranks), host.seconds = std::min(host.seconds, mode.seconds(longest_));
  }
  return found;
}

// Seconds of a group by T that the longest item leaves to others; negative where it does not end by T.
double BatchBound::left(std::int32_t mode, double T) const { return T - instance_.modes[mode].seconds(longest_); }

// Finer levels, from a tenth of an even share of the area up to what one micro-batch may take, with a border where each kind of
// host begins. False where there are none.
bool BatchBound::refine() {
  const auto finer = std::find_if(std::begin(kRatios), std::end(kRatios),
                                  [&](double r) { return ratio_ == 0.0 ? fewest_ <= kFew || r <= kFirstOfMany : r < ratio_; });
  if (finer == std::end(kRatios)) return false;
  ratio_ = *finer;
  level_.clear();
  const double top = std::max(upper_ - fewest_ * fixed_, hosts_.front().seconds) * (1.0 + 1e-6);
  double T = std::min(top, 0.1 * area_ / ranks_ / fewest_);
  if (!(T > 0.0)) T = top;
  for (; T < top; T = (T + fixed_) * ratio_ - fixed_) level_.push_back(T);
  for (const Host& host : hosts_)
    if (host.seconds < top) level_.push_back(host.seconds);
  level_.push_back(top);
  std::sort(level_.begin(), level_.end());
  level_.erase(std::unique(level_.begin(), level_.end()), level_.end());

  programme_ = {{}, {}, fewest_, most_};
  for (std::size_t g = 0; g < level_.size(); ++g) programme_.cost.push_back((g > 0 ? level_[g - 1] : 0.0) + fixed_);
  for (const Host& host : hosts_)  // one that takes just the longest item's seconds counts to the level that begins there
    programme_.lowest.push_back(
        static_cast<int>(std::upper_bound(level_.begin(), level_.end(), host.seconds * (1.0 + kTolerance)) - level_.begin()));
  tree_.reset();
  rows_.clear();
  scale_below_ = 0.8, scale_above_ = 1.0;
  return true;
}

// What a rank, and what a host earns at these prices, level by level.
LevelProgramme::Row BatchBound::row(const std::vector<double>& pi, Effort& effort) const {
  const std::size_t levels = level_.size(), modes = instance_.modes.size();
  LevelProgramme::Row row;
  for (int i = 0; i < types_.size(); ++i) row.need += pi[i] * types_.count[i];
  std::vector<std::vector<double>> per_rank(modes);  // by mode; the most of any mode of at most so many ranks
  for (std::size_t k = 0; k < modes; ++k) {
    const Mode& mode = instance_.modes[k];
    pool_prices_->worth(pi, static_cast<int>(k), static_cast<double>(mode.room), level_, per_rank[k]);
    for (std::size_t g = 0; g < levels; ++g) {
      per_rank[k][g] /= mode.ranks;
      if (k > 0) per_rank[k][g] = std::max(per_rank[k][g], per_rank[k - 1][g]);
    }
  }
  for (std::size_t g = 0; g < levels; ++g) row.plain.push_back(ranks_ * per_rank.back()[g]);
  std::vector<double> seconds, worth;
  for (const Host& host : hosts_) {
    const double ranks = ranks_ - host.ranks;
    std::size_t fitting = 0;  // modes that the host's other ranks allow
    while (fitting < modes && instance_.modes[fitting].ranks <= ranks) ++fitting;
    auto& earned = row.host.emplace_back(levels, 0.0);
    for (const auto k : host.modes) {
      const auto begin = std::lower_bound(level_.begin(), level_.end(), instance_.modes[k].seconds(longest_)) - level_.begin();
      seconds.clear();
      for (std::size_t g = static_cast<std::size_t>(begin); g < levels; ++g) seconds.push_back(left(k, level_[g]));
      pool_prices_->worth(pi, k, static_cast<double>(instance_.modes[k].room - longest_.tokens), seconds, worth);
      for (std::size_t g = static_cast<std::size_t>(begin); g < levels; ++g)
        earned[g] = std::max(earned[g], worth[g - static_cast<std::size_t>(begin)]);
    }
    if (fitting > 0)
      for (std::size_t g = 0; g < levels; ++g) earned[g] += ranks * per_rank[fitting - 1][g];
  }
  effort.spend(static_cast<std::int64_t>((modes + hosts_.size()) * (4 * levels + 8 * static_cast<std::size_t>(types_.size()))));
  return row;
}

// The micro-batches of a choice: plain ones of a level together, the host's other ranks, the rest of the longest item's group.
std::vector<PoolPrices::Pool> BatchBound::pools(const LevelProgramme::Choice& choice) const {
  std::vector<PoolPrices::Pool> pools;
  const auto add = [&](double ranks, double most, double T) {
    if (ranks <= 0.0) return;
    PoolPrices::Pool& pool = pools.emplace_back();
    pool.ranks = ranks;
    for (std::size_t k = 0; k < instance_.modes.size() && instance_.modes[k].ranks <= most; ++k)
      pool.slots.push_back({static_cast<std::int32_t>(k), static_cast<double>(instance_.modes[k].ranks), T,
                            static_cast<double>(instance_.modes[k].room)});
    if (pool.slots.empty()) pools.pop_back();
  };
  for (const auto& part : choice.parts) {
    const double T = level_[part.level];
    if (part.kind < 0) {
      add(ranks_ * part.times, ranks_, T);
      continue;
    }
    const Host& host = hosts_[part.kind];
    add((ranks_ - host.ranks) * part.times, ranks_ - host.ranks, T);
    PoolPrices::Pool group{host.ranks * part.times, {}};
    for (const auto k : host.modes)
      if (const double seconds = left(k, T); seconds >= 0.0)
        group.slots.push_back({k, host.ranks, seconds, static_cast<double>(instance_.modes[k].room - longest_.tokens)});
    pools.push_back(std::move(group));
  }
  return pools;
}

// True where the prices prove that the choice holds too little; its prices are a new row.
bool BatchBound::refute(const LevelProgramme::Choice& choice, Effort& effort) {
  const double ratio = pool_prices_->ascend(pools(choice), effort);
  if (ratio <= 1.0 + kRefuted) return false;
  LevelProgramme::Row made = row(pool_prices_->prices(), effort);
  double earned = 0.0;
  for (const auto& part : choice.parts) earned += part.times * made.earned(part.kind, part.level);
  if (earned >= made.need * (1.0 - kRefuted)) return false;  // by too little to go on with
  if (tree_ != nullptr) tree_->add(made);
  prices_.push_back(pool_prices_->prices()), rows_.push_back(std::move(made));
  if (rows_.size() > kRows) prices_.erase(prices_.begin()), rows_.erase(rows_.begin());
  return true;
}

// The plan's own proportions, each makespan at most `scale` of the plan's: refuted where every kind of host is.
bool BatchBound::follow_plan(double scale, Effort& effort) {
  bool refuted = true;
  const auto level = [&](double T) {
    return static_cast<int>(
        std::min<std::ptrdiff_t>(std::lower_bound(level_.begin(), level_.end(), T) - level_.begin(), std::ssize(level_) - 1));
  };
  for (std::size_t h = 0; h < hosts_.size() && !effort.spent(); ++h) {
    const int host = level(std::max(shape_[0] * scale, hosts_[h].seconds));
    if (level_[host] > shape_[0]) continue;
    LevelProgramme::Choice choice{0.0, {{static_cast<int>(h), host, 1.0}}};
    for (std::size_t m = 1; m < shape_.size(); ++m) choice.parts.push_back({-1, level(shape_[m] * scale), 1.0});
    refuted = refute(choice, effort) && refuted;
  }
  return refuted;
}

// One choice of at most three micro-batches. Where the effort is spent meanwhile, one that was not tried might be cheaper.
void BatchBound::try_few(Effort& effort) {
  const auto choice = enumerate(programme_, rows_, kFew, std::min(upper_, many_), effort);
  if (effort.spent()) return;
  few_ = std::max(few_, choice.cost);
  if (choice.parts.empty() && choice.cost >= upper_) few_ = kInfinity;
  if (!choice.parts.empty()) refined_ = !refute(choice, effort) && !effort.spent();
}

// One node of the tree.
void BatchBound::try_many(Effort& effort) {
  if (tree_ == nullptr) {
    tree_ = std::make_unique<LevelTree>(programme_, kFew + 1);
    for (const auto& row : rows_) tree_->add(row);
  }
  const auto choice = tree_->next(upper_, effort);
  many_ = std::max(many_, tree_->bound());
  if (!choice.parts.empty() && !refute(choice, effort) && !effort.spent()) refined_ = !tree_->split(choice);
  if (choice.parts.empty() && std::isfinite(many_) && !effort.spent()) done_ = true;  // the LP was given up
}

void BatchBound::advance(Effort& effort, double upper, double gap) {
  upper_ = std::min(upper_, upper);
  while (!done_ && !effort.spent() && lower_ * (1.0 + gap) < upper_) {
    if ((level_.empty() || refined_) && !refine()) {
      done_ = true;
      return;
    }
    refined_ = false;
    while (rows_.size() < prices_.size()) rows_.push_back(row(prices_[rows_.size()], effort));
    // First along the plan's own proportions: the largest share of them that is refuted has the prices that matter most.
    if (!shape_.empty() && scale_above_ - scale_below_ > 0.02) {
      const double scale = 0.5 * (scale_below_ + scale_above_);
      (follow_plan(scale, effort) ? scale_below_ : scale_above_) = scale;
      continue;
    }
    few_ < many_ ? try_few(effort) : try_many(effort);
    const double both = std::min(few_, many_);
    lower_ = std::max(lower_, std::min(both, upper_) * (1.0 - kTolerance));
    done_ |= both >= upper_;
  }
}

}  // namespace hetsp::packing
