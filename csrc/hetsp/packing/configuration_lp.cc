#include "hetsp/packing/configuration_lp.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTolerance = 1e-9;      // relative, of ranks: what rounding may have added to a bound
constexpr double kWorthwhile = 1e-5;     // relative: a column that saves less is not looked for
constexpr std::int64_t kCoarsest = 2'000;  // visits of an item that pricing begins with
constexpr std::size_t kPerMode = 6;      // fills of one pricing that become columns, the best ones
constexpr int kEnough = 48;              // columns after which a round leaves the other modes to the next one

lp::Model covering(const std::vector<Item>& items) {
  lp::Model model;
  for (std::size_t i = 0; i < items.size(); ++i) model.add_row(0.0, lp::kInfinity);
  for (std::size_t i = 0; i < items.size(); ++i) {
    const lp::Entry one{static_cast<std::int32_t>(i), 1.0};
    model.add_column(1.0, 0.0, lp::kInfinity, {&one, 1});
  }
  return model;
}

}  // namespace

ConfigurationLp::ConfigurationLp(const std::vector<Mode>& modes, std::vector<Item> items)
    : modes_(modes), items_(std::move(items)), lp_(covering(items_)), alone_(items_.size()), mixture_(modes.size(), 0.5) {}

double ConfigurationLp::seconds(int mode, const Fill& fill) const {
  double sum = 0.0;
  for (const auto& [type, count] : fill) sum += count * modes_[mode].seconds(items_[type]);
  return sum;
}

void ConfigurationLp::add(Column column) {
  column.seconds = seconds(column.mode, column.fill);
  std::vector<lp::Entry> entries;
  for (const auto& [type, count] : column.fill) entries.push_back({type, static_cast<double>(count)});
  lp_.add_column(modes_[column.mode].ranks, 0.0, lp::kInfinity, entries);
  columns_.push_back(std::move(column));
  open_.push_back(true);
}

// Rows and columns for T and need. A type alone has its column in units of one item, at the least ranks per item. False where
// some type that is needed does not end by T.
bool ConfigurationLp::begin(double T, const std::vector<std::int32_t>& need) {
  for (int i = 0; i < types(); ++i) {
    lp_.set_row_bounds(i, need[i], lp::kInfinity);
    double least = kInfinity;
    for (std::size_t k = 0; k < modes_.size(); ++k) {
      const Mode& mode = modes_[k];
      const double one = mode.seconds(items_[i]);
      if (one > T * (1.0 + 1e-12) || items_[i].tokens > mode.room) continue;
      double count = std::max(1, need[i]);
      if (one * count > T) count = std::max(1.0, std::floor(T / one));
      if (items_[i].tokens > 0)
        count = std::min(count, std::floor(static_cast<double>(mode.room) / static_cast<double>(items_[i].tokens)));
      if (mode.ranks / count < least) {
        least = mode.ranks / count;
        alone_[i] = {static_cast<std::int32_t>(k), count * one, {{i, static_cast<std::int32_t>(count)}}};
      }
    }
    if (least == kInfinity && need[i] > 0) return false;
    if (least < kInfinity) lp_.set_cost(i, least);
  }
  for (std::size_t j = 0; j < columns_.size(); ++j) {
    const bool ends = columns_[j].seconds <= T * (1.0 + 1e-12);
    if (ends != open_[j]) lp_.set_bounds(types() + static_cast<int>(j), 0.0, ends ? lp::kInfinity : 0.0);
    open_[j] = ends;
  }
  return true;
}

ConfigurationLp::Verdict ConfigurationLp::solve(double T, const std::vector<std::int32_t>& need, double budget, Effort& effort,
                                                std::int64_t finest) {
  value_ = bound_ = kInfinity;
  if (!begin(T, need)) return Verdict::refuted;
  bound_ = 0.0;
  for (std::int64_t work = std::min(kCoarsest, finest);;) {
    const std::int64_t before = lp_.work();
    const lp::Status status = lp_.solve();
    if (!effort.spend(lp_.work() - before) || status != lp::Status::optimal) return Verdict::unknown;
    value_ = lp_.objective();
    if (value_ <= budget * (1.0 + kTolerance)) return Verdict::feasible;
    double ratio = 1.0, worth = 0.0;
    profit_.assign(lp_.duals().begin(), lp_.duals().end());
    for (int i = 0; i < types(); ++i) worth += need[i] * (profit_[i] = std::max(0.0, profit_[i]));
    const int added = price(T, need, work, effort, &ratio);
    if (effort.spent()) return Verdict::unknown;
    bound_ = std::max(bound_, worth / ratio * (1.0 - kTolerance));
    if (bound_ > budget) return Verdict::refuted;
    if (added > 0) continue;
    if (work >= finest) return Verdict::unknown;
    work = std::min(finest, 4 * work);
  }
}

// Columns of negative reduced cost. `ratio` becomes max(1, max_k P_k / ranks_k), infinity where not all modes were priced.
int ConfigurationLp::price(double T, const std::vector<std::int32_t>& need, std::int64_t work, Effort& effort, double* ratio) {
  int added = 0;
  for (std::size_t turn = 0; turn < modes_.size(); ++turn) {
    if (added >= kEnough || effort.spent()) {
      *ratio = kInfinity;
      break;
    }
    const std::size_t k = next_mode_;
    next_mode_ = (k + 1) % modes_.size();
    const Mode& mode = modes_[k];
    priced_.clear();
    for (int i = 0; i < types(); ++i)
      if (profit_[i] > 0.0 && need[i] > 0)
        priced_.push_back({profit_[i], mode.seconds(items_[i]), static_cast<double>(items_[i].tokens), need[i], i});
    knapsack_.set_mixture(mixture_[k]);
    knapsack_.solve(priced_, T, static_cast<double>(mode.room), mode.ranks * (1.0 + kWorthwhile), work);
    mixture_[k] = knapsack_.mixture();
    *ratio = std::max(*ratio, knapsack_.upper_bound() / mode.ranks);
    const auto& fills = knapsack_.fills();
    for (std::size_t f = fills.size() - std::min(fills.size(), kPerMode); f < fills.size(); ++f, ++added)
      add({static_cast<std::int32_t>(k), 0.0, fills[f]});
    effort.spend(knapsack_.work());
  }
  return added;
}

std::vector<std::pair<ConfigurationLp::Column, double>> ConfigurationLp::solution() const {
  std::vector<std::pair<Column, double>> positive;
  const auto x = lp_.primal();
  for (int i = 0; i < types(); ++i)
    if (x[i] > 1e-9) positive.emplace_back(alone_[i], x[i] / alone_[i].fill[0].second);
  for (std::size_t j = 0; j < columns_.size(); ++j)
    if (const double value = x[types() + static_cast<int>(j)]; value > 1e-9) positive.emplace_back(columns_[j], value);
  return positive;
}

}  // namespace hetsp::packing
