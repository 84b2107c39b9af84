#include "hetsp/packing/batch_lp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace hetsp::packing {

namespace {

constexpr double kTolerance = 1e-9;        // relative: what rounding may have added to a bound
constexpr double kWorthwhile = 1e-5;       // relative: a column that saves less is not looked for
constexpr std::int64_t kCoarsest = 1'500;  // visits of an item that pricing begins with
constexpr std::size_t kPerMode = 2;        // fills of one pricing that become columns, the best ones

// Rows, and the columns that are no groups: sigma and the borrowing between neighbouring levels.
lp::Model frame(const std::vector<std::int32_t>& count, int levels) {
  lp::Model model;
  const auto types = static_cast<std::int32_t>(count.size());
  for (const auto n : count) model.add_row(n, lp::kInfinity);
  for (int g = 0; g < levels; ++g) model.add_row(-lp::kInfinity, 0.0);
  const lp::Entry more{types + levels - 1, -1.0};
  model.add_column(1.0, 0.0, lp::kInfinity, {&more, 1});
  for (int g = 0; g + 1 < levels; ++g) {
    const lp::Entry up[] = {{types + g, -1.0}, {types + g + 1, 1.0}};
    model.add_column(0.0, 0.0, lp::kInfinity, up);
  }
  return model;
}

}  // namespace

BatchLp::BatchLp(const Instance& instance, std::vector<Item> items, std::vector<std::int32_t> count, std::vector<double> levels)
    : modes_(instance.modes),
      items_(std::move(items)),
      count_(std::move(count)),
      levels_(std::move(levels)),
      ranks_(instance.ranks),
      lp_(frame(count_, static_cast<int>(levels_.size()))),
      mixture_(modes_.size(), 0.5) {
  // Each type alone, as often as it fits, in the modes that need the fewest ranks for an item by some level: whatever y is,
  // some choice of columns covers everything.
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(items_.size()); ++i) {
    shortest_.push_back(std::numeric_limits<double>::infinity());
    std::int32_t last = -1;
    for (const double T : levels_) {
      double least = std::numeric_limits<double>::infinity();
      std::int32_t mode = -1, often = 1;
      for (std::size_t k = 0; k < modes_.size(); ++k) {
        const double one = modes_[k].seconds(items_[i]);
        if (items_[i].tokens > modes_[k].room || one > T * (1.0 + 1e-12)) continue;
        shortest_.back() = std::min(shortest_.back(), one);
        double times = std::max(1, count_[i]);
        if (one * times > T) times = std::max(1.0, std::floor(T / one));
        if (items_[i].tokens > 0)
          times = std::min(times, std::floor(static_cast<double>(modes_[k].room) / static_cast<double>(items_[i].tokens)));
        if (modes_[k].ranks / times < least)
          least = modes_[k].ranks / times, mode = static_cast<std::int32_t>(k), often = static_cast<std::int32_t>(times);
      }
      if (mode >= 0 && mode != last) add_column(mode, {{i, often}});
      if (mode >= 0) last = mode;
    }
  }
}

std::int32_t BatchLp::level_of(double seconds) const {
  const auto at = std::lower_bound(levels_.begin(), levels_.end(), seconds * (1.0 - 1e-12));
  return static_cast<std::int32_t>(
      std::min<std::ptrdiff_t>(at - levels_.begin(), static_cast<std::ptrdiff_t>(levels_.size()) - 1));
}

void BatchLp::add_column(std::int32_t mode, const Fill& fill) {
  double seconds = 0.0;
  entries_.clear();
  for (const auto& [type, times] : fill) {
    seconds += times * modes_[mode].seconds(items_[type]);
    entries_.push_back({type, static_cast<double>(times)});
  }
  entries_.push_back({static_cast<std::int32_t>(items_.size()) + level_of(seconds), static_cast<double>(modes_[mode].ranks)});
  lp_.add_column(0.0, 0.0, lp::kInfinity, entries_);
}

double BatchLp::price(std::size_t mode, double T, double threshold_per_rank, const std::vector<double>& profit,
                      std::int64_t work, Effort& effort) {
  const Mode& m = modes_[mode];
  priced_.clear();
  for (std::size_t i = 0; i < items_.size(); ++i)
    if (profit[i] > 0.0)
      priced_.push_back(
          {profit[i], m.seconds(items_[i]), static_cast<double>(items_[i].tokens), count_[i], static_cast<std::int32_t>(i)});
  knapsack_.set_mixture(mixture_[mode]);
  knapsack_.solve(priced_, T, static_cast<double>(m.room), threshold_per_rank * m.ranks, work);
  mixture_[mode] = knapsack_.mixture();
  effort.spend(knapsack_.work());
  return knapsack_.upper_bound() / m.ranks;
}

double BatchLp::profit_per_rank(const std::vector<double>& profit, double T, std::int64_t work, Effort& effort) {
  double most = 0.0;
  for (std::size_t k = 0; k < modes_.size(); ++k) most = std::max(most, price(k, T, most, profit, work, effort));
  return most * (1.0 + kTolerance);
}

BatchLp::Verdict BatchLp::solve(const std::vector<int>& y, Effort& effort, std::int64_t finest) {
  multipliers_.clear();
  const int types = static_cast<int>(items_.size()), levels = static_cast<int>(levels_.size());
  int top = levels - 1;
  while (top > 0 && y[top] == 0) --top;
  for (const double shortest : shortest_)
    if (shortest > levels_[top] * (1.0 + 1e-12)) return Verdict::refuted;
  for (int g = 0; g < levels; ++g) lp_.set_row_bounds(types + g, -lp::kInfinity, ranks_ * y[g]);
  std::vector<double> profit(types);
  for (std::int64_t work = std::min(kCoarsest, finest);;) {
    const std::int64_t before = lp_.work();
    const lp::Status status = lp_.solve();
    if (!effort.spend(lp_.work() - before) || status != lp::Status::optimal) return Verdict::unknown;
    if (lp_.objective() <= kTolerance * ranks_) return Verdict::feasible;
    double worth = 0.0, earned = 0.0;
    for (int i = 0; i < types; ++i) worth += count_[i] * (profit[i] = std::max(0.0, lp_.duals()[i]));
    int added = 0;
    for (int g = 0; g < levels; ++g) {
      if (y[g] == 0) continue;
      const double rank_price = std::max(0.0, -lp_.duals()[types + g]) * (1.0 + kWorthwhile);
      double most = 0.0;
      for (std::size_t k = 0; k < modes_.size() && !effort.spent(); ++k) {
        most = std::max(most, price(k, levels_[g], rank_price, profit, work, effort));
        const auto& fills = knapsack_.fills();
        for (std::size_t f = fills.size() - std::min(fills.size(), kPerMode); f < fills.size(); ++f, ++added)
          add_column(static_cast<std::int32_t>(k), fills[f]);
      }
      earned += ranks_ * y[g] * most;
    }
    if (effort.spent()) return Verdict::unknown;
    if (worth * (1.0 - kTolerance) > earned) {
      multipliers_ = std::move(profit);
      return Verdict::refuted;
    }
    if (added > 0) continue;
    if (work >= finest) return Verdict::unknown;
    work = std::min(finest, 4 * work);
  }
}

}  // namespace hetsp::packing
