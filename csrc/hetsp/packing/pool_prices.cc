#include "hetsp/packing/pool_prices.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace hetsp::packing {

namespace {

constexpr double kNever = 1e300;  // the price of an item where it does not fit
// How much dearer than they are the other prices of an item seem to a slot or pool that climbs. Where several tie, raising one
// alone gains nothing; each rises a little ahead instead and the others follow, as bidders in an auction do (Bertsekas, Ann.
// Oper. Res. 14, 1988, who lets the step shrink as well).
constexpr double kAhead[] = {0.1, 0.03, 0.01, 0.003, 0.0};
constexpr int kSweeps = 12;         // over all m and lambda, with one of them
constexpr double kProgress = 1e-4;  // relative: a sweep that gains less is its last one
constexpr int kHalvings = 12;        // of the interval of one m or lambda
constexpr std::size_t kLanes = 4;     // sums run side by side, for they wait on each other
constexpr double kWidest = 4.0;      // factor by which one step may change a lambda
constexpr double kSlack = 1e-12;     // relative, of seconds: rounding excludes no item

// Corners of a convex hull's lower left side, by rising x and falling y.
struct Corner {
  double x, y;
};

void insert(std::vector<Corner>& hull, Corner c) {
  const auto below = [](const Corner& a, const Corner& b, const Corner& p) {  // p lies on or above the line from a to b
    return (b.x - a.x) * (p.y - a.y) >= (b.y - a.y) * (p.x - a.x);
  };
  auto right = std::lower_bound(hull.begin(), hull.end(), c, [](const Corner& a, const Corner& b) { return a.x < b.x; });
  if (right != hull.end() && right->x == c.x && right->y <= c.y) return;
  if (right != hull.begin()) {
    const Corner left = *std::prev(right);
    if (left.y <= c.y || (right != hull.end() && below(left, *right, c))) return;
  }
  // What c hides: corners to its right that are not lower, and those on either side that the new edges pass below.
  auto first = right, last = right;
  while (last != hull.end() && last->y >= c.y) ++last;
  while (last != hull.end() && std::next(last) != hull.end() && below(c, *std::next(last), *last)) ++last;
  while (first != hull.begin() && std::prev(first) != hull.begin() && below(*std::prev(first, 2), c, *std::prev(first)))
    --first;
  hull.insert(hull.erase(first, last), c);
}

// min of max(x / X, y / Y) over the hull and what lies above and to the right of it.
double gauge(const std::vector<Corner>& hull, double X, double Y) {
  const auto right_of_ray = [&](const Corner& c) { return c.x * Y >= c.y * X; };
  const auto end = std::partition_point(hull.begin(), hull.end(), [&](const Corner& c) { return !right_of_ray(c); });
  if (end == hull.begin()) return X > 0.0 ? end->x / X : Y > 0.0 ? end->y / Y : 0.0;
  const Corner left = *std::prev(end);
  if (end == hull.end()) return Y > 0.0 ? left.y / Y : 0.0;
  // Where the edge from left to *end meets x Y = y X.
  const double before = left.y * X - left.x * Y, after = end->x * Y - end->y * X, part = before / (before + after);
  const double x = left.x + part * (end->x - left.x), y = left.y + part * (end->y - left.y);
  return X > 0.0 && Y > 0.0 ? std::min(x / X, y / Y) : X > 0.0 ? x / X : y / Y;
}

}  // namespace

PoolPrices::PoolPrices(const std::vector<Mode>& modes, const std::vector<Item>& items, std::vector<double> count)
    : items_(items.size()), count_(std::move(count)) {
  for (const Mode& mode : modes) {
    const auto begin = static_cast<std::ptrdiff_t>(seconds_.size());
    for (const Item& item : items) seconds_.push_back(mode.seconds(item));
    for (std::size_t i = 0; i < items.size(); ++i) order_.push_back(static_cast<std::int32_t>(i));
    std::sort(order_.begin() + begin, order_.end(), [&](std::int32_t a, std::int32_t b) {
      const double at = seconds_[begin + a], bt = seconds_[begin + b];
      return at != bt ? at < bt : a < b;
    });
  }
  for (const Item& item : items) tokens_.push_back(static_cast<double>(item.tokens));
  count_.resize((items_ + kLanes - 1) / kLanes * kLanes, 0.0);
  others_.resize(count_.size());
}

void PoolPrices::Line::mix() {
  for (std::size_t i = 0; i < time.size(); ++i) price[i] = (1.0 - m) * time[i] + m * memory[i];
}

void PoolPrices::prepare(const std::vector<Pool>& pools) {
  const std::size_t n = count_.size();  // beyond items_: none of what never fits
  pools_.resize(pools.size());
  for (std::size_t p = 0; p < pools.size(); ++p) {
    Lines& lines = pools_[p];
    lines.lambda = 1.0, lines.ranks = pools[p].ranks;
    lines.slots.resize(pools[p].slots.size());
    lines.lowest.assign(n, kNever);
    for (std::size_t k = 0; k < lines.slots.size(); ++k) {
      const Slot& slot = pools[p].slots[k];
      Line& line = lines.slots[k];
      line.m = 0.5, line.ranks = slot.ranks;
      line.time.assign(n, kNever), line.memory.assign(n, kNever), line.price.resize(n);
      const double* seconds = seconds_.data() + static_cast<std::size_t>(slot.mode) * items_;
      const double per_second = slot.seconds > 0.0 ? slot.ranks / slot.seconds : 0.0;
      const double per_token = slot.tokens > 0.0 ? slot.ranks / slot.tokens : 0.0;
      for (std::size_t i = 0; i < items_; ++i)
        if (seconds[i] <= slot.seconds * (1.0 + kSlack) && tokens_[i] <= slot.tokens)
          line.time[i] = per_second * seconds[i], line.memory[i] = per_token * tokens_[i];
      line.mix();
      for (std::size_t i = 0; i < n; ++i) lines.lowest[i] = std::min(lines.lowest[i], line.price[i]);
    }
  }
}

// others_: the least price in all pools but this one, in units of its lambda.
void PoolPrices::lower_others(const Lines& but) {
  std::fill(others_.begin(), others_.end(), kNever);
  for (const Lines& lines : pools_)
    if (&lines != &but)
      for (std::size_t i = 0; i < others_.size(); ++i) others_[i] = std::min(others_[i], lines.lambda * lines.lowest[i]);
  const double scale = 1.0 / but.lambda;
  for (double& other : others_) other *= scale;
}

// The m of one slot at which sum n_i min(cap_i, (1 - m) time_i + m memory_i), which is concave in m, is largest; cap is the
// least of others_ and of the pool's other slots.
void PoolPrices::best_mixture(Lines& lines, std::size_t slot, double ahead) {
  const std::size_t n = others_.size();
  Line& line = lines.slots[slot];
  auto& cap = lines.lowest;
  std::fill(cap.begin(), cap.end(), kNever);
  for (std::size_t k = 0; k < lines.slots.size(); ++k)
    if (k != slot)
      for (std::size_t i = 0; i < n; ++i) cap[i] = std::min(cap[i], lines.slots[k].price[i]);
  double low = 0.0, high = 1.0;
  for (int step = 0; step < kHalvings && low < high; ++step) {
    const double m = 0.5 * (low + high), rest = 1.0 - m;
    std::array<double, kLanes> slope{};
    for (std::size_t i = 0; i < n; i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::size_t j = i + lane;
        const double price = rest * line.time[j] + m * line.memory[j];
        slope[lane] += price < ahead * std::min(cap[j], others_[j]) ? count_[j] * (line.memory[j] - line.time[j]) : 0.0;
      }
    const double rise = std::accumulate(slope.begin(), slope.end(), 0.0);
    if (rise >= 0.0) low = m;
    if (rise <= 0.0) high = m;
  }
  // The ends are no middles: an optimum there is met exactly.
  line.m = low > 0.5 && high == 1.0 ? 1.0 : high < 0.5 && low == 0.0 ? 0.0 : 0.5 * (low + high);
  line.mix();
  for (std::size_t i = 0; i < n; ++i) cap[i] = std::min(cap[i], line.price[i]);
}

// The lambda of one pool at which the ratio, concave over linear and so with one maximum, is largest.
void PoolPrices::best_weight(Lines& lines, double ahead) {
  double paid = 0.0;
  for (const Lines& other : pools_)
    if (&other != &lines) paid += other.lambda * other.ranks;
  paid /= lines.lambda;
  double low = 1.0 / kWidest, high = kWidest;  // of the present lambda
  for (int step = 0; step < kHalvings; ++step) {
    const double factor = std::sqrt(low * high);
    std::array<double, kLanes> sum{}, slope{};
    for (std::size_t i = 0; i < others_.size(); i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const std::size_t j = i + lane;
        const bool here = factor * lines.lowest[j] < ahead * others_[j];
        slope[lane] += here ? count_[j] * lines.lowest[j] : 0.0;
        sum[lane] += count_[j] * (here ? factor * lines.lowest[j] : ahead * others_[j]);
      }
    const double rise = std::accumulate(slope.begin(), slope.end(), 0.0), all = std::accumulate(sum.begin(), sum.end(), 0.0);
    (rise * (paid + factor * lines.ranks) > all * lines.ranks ? low : high) = factor;
  }
  lines.lambda *= std::sqrt(low * high);
}

double PoolPrices::ratio() {
  prices_.assign(items_, kNever);
  double paid = 0.0, sum = 0.0;
  for (const Lines& lines : pools_) {
    paid += lines.lambda * lines.ranks;
    for (std::size_t i = 0; i < prices_.size(); ++i) prices_[i] = std::min(prices_[i], lines.lambda * lines.lowest[i]);
  }
  for (std::size_t i = 0; i < prices_.size(); ++i) sum += count_[i] * prices_[i];
  return sum / paid;
}

double PoolPrices::ascend(const std::vector<Pool>& pools, Effort& effort) {
  prepare(pools);
  std::size_t slots = 0;
  for (const Lines& lines : pools_) slots += lines.slots.size();
  double best = ratio();
  const auto alone = std::find_if(prices_.begin(), prices_.end(), [](double price) { return price >= kNever; });
  if (alone != prices_.end()) {
    const auto item = alone - prices_.begin();
    prices_.assign(items_, 0.0);
    prices_[static_cast<std::size_t>(item)] = 1.0;
    return std::numeric_limits<double>::infinity();
  }
  std::vector<double> prices = prices_;
  for (const double ahead : kAhead) {
    double last = 0.0;
    for (int sweep = 0; sweep < kSweeps && !effort.spent(); ++sweep) {
      for (Lines& lines : pools_) {
        lower_others(lines);
        for (std::size_t k = 0; k < lines.slots.size(); ++k) best_mixture(lines, k, 1.0 + ahead);
        if (pools_.size() > 1) best_weight(lines, 1.0 + ahead);
      }
      effort.spend(static_cast<std::int64_t>(count_.size() * (slots + pools_.size()) * (kHalvings + slots) / 8));
      const double now = ratio();
      if (now > best) best = now, prices = prices_;
      if (now <= last * (1.0 + kProgress)) break;
      last = now;
    }
  }
  prices_ = std::move(prices);
  return best;
}

// At m the best item fills the group with max prices_i / w(i), and the least of that over m is one over the gauge
//
//   min of max(x / seconds, y / tokens) over the convex hull of (x_i, y_i) = (t_i, s_i) / prices_i of the items that fit.
//
// Only the hull's lower left side matters. Longer seconds add items and turn the ray on which the minimum lies; an item that is
// once inside the hull stays there.
void PoolPrices::worth(const std::vector<double>& prices, int mode, double tokens, const std::vector<double>& seconds,
                       std::vector<double>& worth) const {
  const std::size_t n = items_;
  const double* t = seconds_.data() + static_cast<std::size_t>(mode) * n;
  const std::int32_t* order = order_.data() + static_cast<std::size_t>(mode) * n;
  std::vector<Corner> hull;
  double everything = 0.0;
  std::size_t next = 0;
  worth.resize(seconds.size());
  for (std::size_t g = 0; g < seconds.size(); ++g) {
    for (; next < n && t[order[next]] <= seconds[g] * (1.0 + kSlack); ++next) {
      const auto i = static_cast<std::size_t>(order[next]);
      if (prices[i] <= 0.0 || tokens_[i] > tokens) continue;
      everything += prices[i] * count_[i];
      insert(hull, {t[i] / prices[i], tokens_[i] / prices[i]});
    }
    worth[g] = hull.empty() ? 0.0 : std::min(everything, 1.0 / gauge(hull, seconds[g], tokens));
  }
}

}  // namespace hetsp::packing
