#include "hetsp/packing/knapsack_relaxation.h"

#include <algorithm>
#include <limits>

namespace hetsp::packing {

namespace {
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kLanes = 4;             // sums at once: one alone waits for each of its additions
constexpr int kMixtures = 12, kPrices = 40;   // looks at m, and at prices for each
constexpr double kLeastM = 0.02, kNearM = 0.03;  // where m begins at least; how far the next m lies at first
constexpr double kNear = 0.01;                // relative: the same for prices
constexpr double kFarther = 4.0;              // how much farther each time
constexpr int kRough = 7;                     // looks at m by rough prices
constexpr double kRoughPrice = 1e-3, kSamePrice = 1e-7;  // relative: prices that are not looked between
constexpr double kMostPrice = 1e300;          // of what weighs nothing
}  // namespace

void KnapsackRelaxation::clear() {
  profit_.clear(), seconds_.clear(), tokens_.clear(), count_.clear();
  items_ = 0;
}

void KnapsackRelaxation::add(double profit, double seconds, double tokens, double count) {
  if (items_ % kLanes == 0)
    for (auto* each : {&profit_, &seconds_, &tokens_, &count_}) each->resize(items_ + kLanes, 0.0);
  profit_[items_] = profit, seconds_[items_] = seconds, tokens_[items_] = tokens, count_[items_] = count;
  ++items_;
}

// What the items that are worth their prices use, and gain above them.
KnapsackRelaxation::Use KnapsackRelaxation::use(double a, double b) const {
  double gain[kLanes] = {}, t[kLanes] = {}, s[kLanes] = {};
  for (std::size_t i = 0; i < profit_.size(); i += kLanes)
    for (std::size_t l = 0; l < kLanes; ++l) {
      const double worth = profit_[i + l] - a * seconds_[i + l] - b * tokens_[i + l], x = worth > 0.0 ? count_[i + l] : 0.0;
      gain[l] += x * worth, t[l] += x * seconds_[i + l], s[l] += x * tokens_[i + l];
    }
  return {(t[0] + t[1]) + (t[2] + t[3]), (s[0] + s[1]) + (s[2] + s[3]), (gain[0] + gain[1]) + (gain[2] + gain[3])};
}

// The price of weight at which nothing is worth it.
double KnapsackRelaxation::dearest(double second, double token) const {
  double most = 0.0;
  for (std::size_t i = 0; i < items_; ++i) {
    const double weight = second * seconds_[i] + token * tokens_[i];
    if (count_[i] > 0.0) most = std::max(most, weight > 0.0 ? profit_[i] / weight : kMostPrice);
  }
  return std::min(most, kMostPrice);
}

double KnapsackRelaxation::solve(double T, double S, double t, double s, double m, double enough) {
  const double per_T = T > 0.0 ? 1.0 / T : 0.0, per_S = S > 0.0 ? 1.0 / S : 0.0;
  double low = 0.0, high = 1.0, best = kInfinity, step = kNearM;
  bool ends[2] = {false, false};  // looked at: 1, 0
  m = std::clamp(m, kLeastM, 1.0 - kLeastM);
  for (int look = 0; look < kMixtures; ++look) {
    const double second = (1.0 - m) * per_T, token = m * per_S, left = second * t + token * s;
    const auto weight = [&](const Use& u) { return second * u.seconds + token * u.tokens; };
    const auto at = [&](double price) {
      const Use u = use(price * second, price * token);
      if (price * left + u.gain < best)
        best = price * left + u.gain, per_second_ = price * second, per_token_ = price * token, m_ = m;
      return u;
    };
    Use over = at(0.0), under;
    if (over.seconds <= t && over.tokens <= s) break;  // everything fits
    const double same = look < kRough && 0.0 < m && m < 1.0 ? kRoughPrice : kSamePrice;
    double cheap = 0.0, dear = weight(over) > left ? dearest(second, token) : 0.0;
    double price = price_ < dear ? price_ : 0.5 * dear, apart = kNear * price;
    for (int p = 0; p < kPrices && dear - cheap > same * dear; ++p, apart *= kFarther) {
      const Use u = at(price);
      const bool full = weight(u) > left;
      (full ? cheap : dear) = price;
      (full ? over : under) = u;
      const double next = full ? price + apart : price - apart;
      price = cheap < next && next < dear ? next : 0.5 * (cheap + dear);
    }
    if (dear > 0.0) price_ = dear;
    if (best <= enough) break;
    const double spread = weight(over) - weight(under);
    const double part = dear > 0.0 && spread > 0.0 ? std::clamp((left - weight(under)) / spread, 0.0, 1.0) : 1.0;
    const double more_t = under.seconds + part * (over.seconds - under.seconds) - t;
    const double more_s = under.tokens + part * (over.tokens - under.tokens) - s;
    const bool down = more_t * per_T > more_s * per_S;
    if (m == (down ? 0.0 : 1.0)) break;
    (down ? high : low) = m;
    // An end is looked at before what lies next to it: often one resource alone is short.
    const double next = down ? m - step : m + step, end = down ? 0.0 : 1.0;
    const bool beyond = down ? next <= low : next >= high;
    m = !beyond ? next : (down ? low : high) == end && !ends[down] ? end : 0.5 * (low + high);
    if (m == end) ends[down] = true;
    step *= kFarther;
  }
  return best;
}

}  // namespace hetsp::packing
