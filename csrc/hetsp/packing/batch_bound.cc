#include "hetsp/packing/batch_bound.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <utility>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/area_bound.h"

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTolerance = 1e-9;
constexpr double kRatios[] = {1.04, 1.015, 1.006};  // of neighbouring levels, one grid after the other
constexpr std::size_t kRows = 40;             // the newest ones stay
constexpr std::int64_t kRough = 1'500, kFinest = 8'000;  // visits of an item by one pricing
constexpr int kNodes = 600;                   // of the branch and bound
constexpr int kFew = 64;                     // types
constexpr int kFewMicroBatches = 3;           // that are enumerated

double width_for(const std::vector<Item>& items) {
  for (const double width : {0.0, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08})
    if (make_types(items, width).size() <= kFew) return width;
  return 0.16;
}

}  // namespace

BatchBound::BatchBound(const Instance& instance, double fixed_seconds, int micro_batches, std::vector<double> makespans)
    : ranks_(instance.ranks),
      fixed_(fixed_seconds),
      upper_(0.0),
      most_(micro_batches),
      instance_(instance),
      types_(make_types(instance.items, width_for(instance.items))),
      shape_(std::move(makespans)) {
  std::sort(shape_.rbegin(), shape_.rend());
  for (const double T : shape_) upper_ += T + fixed_;
  double per_rank = 0.0, tokens = 0.0;
  for (const Mode& mode : instance.modes) per_rank = std::max(per_rank, static_cast<double>(mode.room) / mode.ranks);
  for (const Item& item : instance.items) tokens += static_cast<double>(item.tokens);
  if (tokens > 0.0) fewest_ = std::max(1, static_cast<int>(std::ceil(tokens / (per_rank * ranks_) * (1.0 - 1e-12))));
  if (most_ == 0) most_ = static_cast<int>(instance.items.size());
  area_ = AreaBound(instance, make_types(instance.items)).area(kInfinity);
  const AreaBound of_types(instance, types_);
  for (int i = 0; i < types_.size(); ++i) longest_ = std::max(longest_, of_types.shortest(i));
  lower_ = std::max(area_ / ranks_, longest_) * (1.0 - kTolerance) + fewest_ * fixed_;
  done_ = instance.items.empty();
  // Two rows that need no LP: rank-seconds, and tokens.
  Row seconds, memory;
  for (int i = 0; i < types_.size(); ++i) {
    double least = kInfinity;
    for (const Mode& mode : instance.modes)
      if (types_.item[i].tokens <= mode.room) least = std::min(least, mode.ranks * mode.seconds(types_.item[i]));
    seconds.profit.push_back(least), memory.profit.push_back(static_cast<double>(types_.item[i].tokens));
  }
  rows_ = {seconds, memory};
}

// Finer levels, from a fifth of an even share of the area up to what one micro-batch may take; no Phi yet. False where there
// are none.
bool BatchBound::refine() {
  const auto finer =
      std::find_if(std::begin(kRatios), std::end(kRatios), [&](double r) { return lp_ == nullptr || r < ratio_; });
  if (finer == std::end(kRatios)) return false;
  ratio_ = *finer;
  level_.clear();
  const double top = std::max(upper_ - fewest_ * fixed_, longest_) * (1.0 + 1e-6);
  double T = std::min(top, 0.2 * area_ / ranks_ / fewest_);
  if (!(T > 0.0)) T = top;
  for (; T < top; T *= ratio_) level_.push_back(T);
  level_.push_back(top);
  lp_ = std::make_unique<BatchLp>(instance_, types_.item, types_.count, level_);
  for (Row& row : rows_) row.per_microbatch.clear();
  scale_below_ = 0.8, scale_above_ = 1.0;
  return true;
}

// Phi of a row at every level; `exact` levels with more thorough pricing. False where the effort was spent.
bool BatchBound::earn(Row& row, const std::vector<int>& exact, Effort& effort) {
  row.need = 0.0;
  for (int i = 0; i < types_.size(); ++i) row.need += row.profit[i] * types_.count[i];
  row.per_microbatch.assign(level_.size(), 0.0);
  for (std::size_t g = 0; g < level_.size(); ++g) {
    const bool wanted = g < exact.size() && exact[g] > 0;
    row.per_microbatch[g] = ranks_ * lp_->profit_per_rank(row.profit, level_[g], wanted ? kFinest : kRough, effort);
    if (effort.spent()) {
      row.per_microbatch.clear();
      return false;
    }
  }
  // More time never earns less, so a bound at a longer makespan holds at a shorter one.
  for (std::size_t g = level_.size() - 1; g-- > 0;)
    row.per_microbatch[g] = std::min(row.per_microbatch[g], row.per_microbatch[g + 1]);
  return true;
}

// Asks the LP about y; a refusal becomes a row. False where the effort was spent.
bool BatchBound::refute(const std::vector<int>& y, Effort& effort, bool* refuted) {
  const auto verdict = lp_->solve(y, effort, kFinest);
  if (effort.spent()) return false;
  *refuted = verdict == BatchLp::Verdict::refuted && !lp_->multipliers().empty();
  if (!*refuted) return true;
  Row row{lp_->multipliers(), 0.0, {}};
  if (!earn(row, y, effort)) return false;
  rows_.push_back(std::move(row));
  if (rows_.size() > kRows) rows_.erase(rows_.begin() + 2);
  return true;
}

// The integer programme for at most three micro-batches, by trying all levels but the last, which the rows then determine.
// Returns the least cost that is below `best`, with its y, else `best`.
double BatchBound::enumerate(int micro_batches, double best, std::vector<int>& y, Effort& effort) const {
  const int levels = static_cast<int>(level_.size());
  std::vector<double> have(rows_.size(), 0.0);
  std::vector<int> chosen;
  const auto cost = [&](int g) { return (g > 0 ? level_[g - 1] : 0.0) + fixed_; };
  // Levels fall from one micro-batch to the next; `top` is the highest that the next may have.
  const std::function<void(int, int, double)> extend = [&](int left, int top, double sum) {
    if (left == 1) {
      int g = 0;
      for (std::size_t r = 0; r < rows_.size(); ++r) {
        const auto& earned = rows_[r].per_microbatch;
        const double missing = rows_[r].need * (1.0 - kTolerance) - have[r];
        g = std::max(g, static_cast<int>(std::lower_bound(earned.begin(), earned.end(), missing) - earned.begin()));
      }
      if (chosen.empty())
        while (g <= top && level_[g] < longest_ * (1.0 - kTolerance)) ++g;
      effort.spend(static_cast<std::int64_t>(rows_.size()));
      if (g > top || sum + cost(g) >= best) return;
      best = sum + cost(g);
      y.assign(levels, 0);
      for (const int other : chosen) ++y[other];
      ++y[g];
      return;
    }
    for (int g = top; g >= 0 && !effort.spent(); --g) {
      if (chosen.empty() && level_[g] < longest_ * (1.0 - kTolerance)) break;
      if (sum + cost(g) + (left - 1) * fixed_ >= best) continue;
      for (std::size_t r = 0; r < rows_.size(); ++r) have[r] += rows_[r].per_microbatch[g];
      chosen.push_back(g);
      extend(left - 1, g, sum + cost(g));
      chosen.pop_back();
      for (std::size_t r = 0; r < rows_.size(); ++r) have[r] -= rows_[r].per_microbatch[g];
    }
  };
  extend(micro_batches, levels - 1, 0.0);
  return best;
}

// The integer programme, for counts up to kFew by enumeration, for more by branch and bound.
double BatchBound::choose(std::vector<int>& y, Effort& effort) const {
  y.clear();
  double best = kInfinity;
  for (int k = fewest_; k <= std::min(kFewMicroBatches, most_); ++k) best = enumerate(k, best, y, effort);
  const int more = std::max(fewest_, kFewMicroBatches + 1);
  // So many cost their fixed seconds, the area and at least the longest item.
  if (more > most_ || more * fixed_ + std::max(area_ / ranks_, longest_) * (1.0 - kTolerance) >= best) return best;
  std::vector<int> other;
  const double value = branch_and_bound(more, other, effort);
  if (value >= best) return best;
  y = std::move(other);
  return value;
}

// The integer programme for at least `fewest` micro-batches: its value or, where the branch and bound was cut off, a bound of
// it; y of the best solution found.
double BatchBound::branch_and_bound(int fewest, std::vector<int>& y, Effort& effort) const {
  const int levels = static_cast<int>(level_.size());
  lp::Model model;
  for (std::size_t r = 0; r < rows_.size(); ++r) model.add_row(rows_[r].need > 0.0 ? 1.0 - kTolerance : 0.0, lp::kInfinity);
  model.add_row(fewest, most_);
  model.add_row(1.0, lp::kInfinity);
  std::vector<lp::Entry> entries;
  for (int g = 0; g < levels; ++g) {
    entries.clear();
    for (std::size_t r = 0; r < rows_.size(); ++r)
      if (rows_[r].per_microbatch[g] > 0.0)
        entries.push_back({static_cast<std::int32_t>(r), rows_[r].per_microbatch[g] / rows_[r].need});
    entries.push_back({static_cast<std::int32_t>(rows_.size()), 1.0});
    if (level_[g] >= longest_ * (1.0 - kTolerance)) entries.push_back({static_cast<std::int32_t>(rows_.size()) + 1, 1.0});
    model.add_column((g > 0 ? level_[g - 1] : 0.0) + fixed_, 0.0, most_, entries);
  }
  lp::Simplex simplex(model);
  struct Node {
    double bound;
    std::vector<std::int16_t> low, high;  // [levels]
    bool operator<(const Node& other) const { return bound > other.bound; }
  };
  std::priority_queue<Node> open;
  const auto many = static_cast<std::int16_t>(std::min(most_, 30'000));
  open.push({0.0, std::vector<std::int16_t>(levels, 0), std::vector<std::int16_t>(levels, many)});
  double best = kInfinity;
  y.clear();
  std::int64_t spent = 0;
  for (int nodes = 0; !open.empty() && open.top().bound < best * (1.0 - 1e-7); ++nodes) {
    if (nodes >= kNodes || effort.spent()) return std::min(best, open.top().bound);
    Node node = open.top();
    open.pop();
    for (int g = 0; g < levels; ++g) simplex.set_bounds(g, node.low[g], node.high[g]);
    const lp::Status status = simplex.solve();
    effort.spend(simplex.work() - spent);
    spent = simplex.work();
    if (status == lp::Status::infeasible) continue;
    if (status != lp::Status::optimal) return std::min(best, node.bound);
    node.bound = std::max(node.bound, simplex.objective());
    if (node.bound >= best) continue;
    int branch = -1;
    for (int g = levels; g-- > 0;) {  // the longest micro-batch first
      const double value = simplex.primal()[g];
      if (std::abs(value - std::round(value)) > 1e-6) {
        branch = g;
        break;
      }
    }
    if (branch < 0) {
      best = node.bound;
      y.assign(levels, 0);
      for (int g = 0; g < levels; ++g) y[g] = static_cast<int>(std::lround(simplex.primal()[g]));
      continue;
    }
    const auto floor = static_cast<std::int16_t>(std::floor(simplex.primal()[branch]));
    Node above = node;
    node.high[branch] = floor, above.low[branch] = static_cast<std::int16_t>(floor + 1);
    open.push(std::move(node)), open.push(std::move(above));
  }
  return best;
}

void BatchBound::advance(Effort& effort, double upper, double gap) {
  upper_ = std::min(upper_, upper);
  std::vector<int> y;
  bool refuted = false;
  while (!done_ && !effort.spent() && lower_ * (1.0 + gap) < upper_) {
    if (lp_ == nullptr && !refine()) return;
    for (Row& row : rows_)
      if (row.per_microbatch.empty() && !earn(row, {}, effort)) return;
    if (scale_above_ - scale_below_ > 0.02) {
      // First along the plan's own proportions: the largest share of them that is refuted has the pi that matter most.
      const double scale = 0.5 * (scale_below_ + scale_above_);
      y.assign(level_.size(), 0);
      for (const double T : shape_) {
        const auto above = std::upper_bound(level_.begin(), level_.end(), std::max(T * scale, T == shape_[0] ? longest_ : 0.0));
        ++y[std::min<std::size_t>(above - level_.begin(), level_.size() - 1)];
      }
      if (!refute(y, effort, &refuted)) return;
      (refuted ? scale_below_ : scale_above_) = scale;
      continue;
    }
    const double value = choose(y, effort);
    if (effort.spent()) return;  // what was not tried might be cheaper
    lower_ = std::max(lower_, std::min(value * (1.0 - kTolerance), upper_));
    if (y.empty() || !refute(y, effort, &refuted)) {
      done_ |= y.empty();
      return;
    }
    if (!refuted && !refine()) done_ = true;
  }
}

}  // namespace hetsp::packing
