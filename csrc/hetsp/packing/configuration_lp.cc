#include "hetsp/packing/configuration_lp.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kTolerance = 1e-9;      // relative, of ranks: what rounding may have added to a bound
constexpr double kWorthwhile = 1e-5;     // relative: a column that saves less is not looked for
constexpr std::int64_t kCoarsest = 10'000;  // visits of an item that pricing begins with: most problems are finished by then
constexpr std::int64_t kPerVisit = 12, kVisits = 3;  // entries of the LP per visit; visits per one of the pricing
constexpr std::size_t kPerMode = 6;      // fills of one pricing that become columns, the best ones
constexpr double kBelow = 1e-6;             // relative: how far below the profit that refutes pricing looks
constexpr double kAlpha = 0.7;               // of the centre in the profits that are priced
constexpr double kLeastAlpha = 0.3;          // below it the duals alone are priced
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

// Items leave, the smallest that is enough or else the largest one, until the group ends by T.
void ConfigurationLp::add_until(double T, Column column) {
  const Mode& mode = modes_[column.mode];
  for (double over = seconds(column.mode, column.fill) - T; over > 1e-12 * T && !column.fill.empty();) {
    std::size_t chosen = 0;
    double best = 0.0;
    for (std::size_t j = 0; j < column.fill.size(); ++j) {
      const double one = mode.seconds(items_[column.fill[j].first]);
      if (best >= over ? over <= one && one < best : one > best) chosen = j, best = one;
    }
    if (best <= 0.0) break;
    over -= best;
    if (--column.fill[chosen].second == 0) column.fill.erase(column.fill.begin() + static_cast<std::ptrdiff_t>(chosen));
  }
  if (!column.fill.empty()) add(std::move(column));
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

// The same LP from its first basis.
void ConfigurationLp::restart(const std::vector<std::int32_t>& need) {
  lp_ = lp::Simplex(covering(items_));
  for (int i = 0; i < types(); ++i) {
    lp_.set_row_bounds(i, need[i], lp::kInfinity);
    if (!alone_[i].fill.empty()) lp_.set_cost(i, static_cast<double>(modes_[alone_[i].mode].ranks) / alone_[i].fill[0].second);
  }
  std::vector<lp::Entry> entries;
  for (std::size_t j = 0; j < columns_.size(); ++j) {
    entries.clear();
    for (const auto& [type, count] : columns_[j].fill) entries.push_back({type, static_cast<double>(count)});
    lp_.add_column(modes_[columns_[j].mode].ranks, 0.0, open_[j] ? lp::kInfinity : 0.0, entries);
  }
}

void ConfigurationLp::set_centre(std::vector<double> profits) { centre_ = std::move(profits); }

ConfigurationLp::Verdict ConfigurationLp::solve(double T, const std::vector<std::int32_t>& need, double budget, Effort& effort,
                                                std::int64_t finest) {
  value_ = bound_ = kInfinity;
  if (!begin(T, need)) return Verdict::refuted;
  bound_ = 0.0;
  const auto worth = [&](const std::vector<double>& profits) {
    double sum = 0.0;
    for (int i = 0; i < types(); ++i) sum += need[i] * profits[i];
    return sum;
  };
  double centre_bound = 0.0;
  std::int64_t work = std::min(kCoarsest, finest);
  for (double alpha = centre_.empty() ? 0.0 : 1.0;;) {
    const std::int64_t before = lp_.work();
    lp::Status status = lp_.solve();
    if (status == lp::Status::numerical) {  // another basis may do
      restart(need);
      status = lp_.solve();
    }
    work_ += std::max<std::int64_t>(0, lp_.work() - before) / kPerVisit;
    if (!effort.spend(std::max<std::int64_t>(0, lp_.work() - before) / kPerVisit) || status != lp::Status::optimal)
      return Verdict::unknown;
    value_ = lp_.objective();
    if (value_ <= budget * (1.0 + kTolerance)) return Verdict::feasible;
    duals_.assign(lp_.duals().begin(), lp_.duals().end());
    for (double& dual : duals_) dual = std::max(0.0, dual);
    for (;;) {  // until a column is found that the LP does not know, at profits nearer and nearer to its duals
      const double of_duals = worth(duals_), of_centre = alpha > 0.0 ? worth(centre_) : 0.0;
      if (of_centre <= 0.0) alpha = 0.0;
      profit_ = duals_;
      if (alpha > 0.0)
        for (int i = 0; i < types(); ++i) profit_[i] = (1.0 - alpha) * duals_[i] + alpha * of_duals / of_centre * centre_[i];
      double ratio = 1.0;
      const double enough = budget > 0.0 ? std::max(1.0 + kWorthwhile, of_duals / budget * (1.0 - kBelow)) : 1.0 + kWorthwhile;
      const int added = price(T, need, enough, work, effort, &ratio);
      if (effort.spent()) return Verdict::unknown;
      const double bound = of_duals / ratio * (1.0 - kTolerance);
      if (bound > centre_bound) centre_bound = bound, centre_ = profit_;
      bound_ = std::max(bound_, bound);
      if (bound_ > budget) return Verdict::refuted;
      if (added > 0) break;
      if (alpha > 0.0) {
        alpha = alpha > kLeastAlpha ? 0.5 * alpha : 0.0;
        continue;
      }
      if (work >= finest) return Verdict::unknown;
      work = std::min(finest, 4 * work);
    }
    alpha = centre_.empty() ? 0.0 : kAlpha;  // a round that left modes out has no bound and so no centre
  }
}

bool ConfigurationLp::centre_refutes(double T, const std::vector<std::int32_t>& need, double budget, Effort& effort,
                                     std::int64_t work) {
  if (centre_.empty()) return false;
  double worth = 0.0, ratio = 0.0;
  for (int i = 0; i < types(); ++i) worth += need[i] * centre_[i];
  profit_ = centre_;
  for (double& profit : profit_) profit *= worth > 0.0 ? budget / worth : 0.0;
  duals_.assign(profit_.size(), 0.0);  // no columns
  price(T, need, 1.0 - kBelow, work, effort, &ratio);
  return !effort.spent() && ratio <= 1.0 - kBelow;
}

// Columns of negative reduced cost. `ratio` rises to max_k P_k / ranks_k, infinity where not all modes were priced.
int ConfigurationLp::price(double T, const std::vector<std::int32_t>& need, double enough, std::int64_t work, Effort& effort,
                           double* ratio) {
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
    knapsack_.solve(priced_, T, static_cast<double>(mode.room), mode.ranks * enough, work);
    mixture_[k] = knapsack_.mixture();
    *ratio = std::max(*ratio, knapsack_.upper_bound() / mode.ranks);
    const auto& fills = knapsack_.fills();
    for (std::size_t f = fills.size() - std::min(fills.size(), kPerMode); f < fills.size(); ++f) {
      double gain = 0.0;
      for (const auto& [type, count] : fills[f]) gain += count * duals_[type];
      if (gain > mode.ranks * (1.0 + kWorthwhile)) add({static_cast<std::int32_t>(k), 0.0, fills[f]}), ++added;
    }
    work_ += kVisits * knapsack_.work();
    effort.spend(kVisits * knapsack_.work());
  }
  return added;
}

std::vector<std::pair<ConfigurationLp::Column, double>> ConfigurationLp::solution() const {
  std::vector<std::pair<Column, double>> positive;
  const auto x = lp_.primal();  // columns that came after the LP was solved last have none
  const std::size_t known = std::min(columns_.size(), x.size() - std::min(x.size(), alone_.size()));
  for (int i = 0; i < types(); ++i)
    if (x[i] > 1e-9) positive.emplace_back(alone_[i], x[i] / alone_[i].fill[0].second);
  for (std::size_t j = 0; j < known; ++j)
    if (const double value = x[types() + static_cast<int>(j)]; value > 1e-9) positive.emplace_back(columns_[j], value);
  return positive;
}

}  // namespace hetsp::packing
