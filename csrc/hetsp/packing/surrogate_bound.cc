#include "hetsp/packing/surrogate_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace hetsp::packing {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSlack = 1.0 + 1e-12;     // of T: rounding excludes no mode
constexpr double kRounding = 1.0 + 1e-10;  // of the ranks that refute: above what summing may have added
constexpr double kDown = 1.0 - 1e-9, kUp = 1.0 + 1e-9;  // of a makespan
constexpr std::size_t kOwn = 24;           // up to so many modes have a multiplier each
constexpr double kBand = 1.25;             // else those whose ranks differ by no more than this factor share one
constexpr int kTangents = 12;              // looks at one multiplier in a turn
constexpr double kEnough = 1e-6;           // of the ranks: a gain that is not worth another turn
// How much dearer than they are the other modes seem to one that climbs. Where several tie for an item, raising one alone gains
// nothing; each raises a little ahead instead and the others follow, as bidders in an auction do (Bertsekas, Ann. Oper. Res.
// 14, 1988, who also lets the step shrink).
constexpr double kAhead[] = {0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0};
constexpr int kTurns = 4;  // at most, with one of them
constexpr int kRises = 24;  // of T
constexpr int kRoots = 60;  // looks for the largest T that is refuted
constexpr int kCoarseTypes = 256;
constexpr std::size_t kVisits = 400'000;  // types times modes: below a millisecond for one look

// Where each band of modes that share a multiplier begins.
std::vector<std::size_t> bands(const std::vector<Mode>& modes) {
  std::vector<std::size_t> begin;
  for (std::size_t k = 0; k < modes.size(); ++k)
    if (k == 0 || modes.size() <= kOwn || modes[k].ranks > kBand * modes[begin.back()].ranks) begin.push_back(k);
  begin.push_back(modes.size());
  return begin;
}

// Of each band the first, the middle and the last mode.
std::vector<std::int32_t> thinned(const std::vector<Mode>& modes) {
  std::vector<std::int32_t> kept;
  const auto begin = bands(modes);
  for (std::size_t b = 0; b + 1 < begin.size(); ++b)
    for (const std::size_t k : {begin[b], (begin[b] + begin[b + 1] - 1) / 2, begin[b + 1] - 1})
      if (kept.empty() || static_cast<std::size_t>(kept.back()) < k) kept.push_back(static_cast<std::int32_t>(k));
  return kept;
}

}  // namespace

SurrogateBound::SurrogateBound(const Instance& instance, const ItemTypes& types)
    : modes_(instance.modes),
      ranks_(instance.ranks),
      types_(static_cast<std::size_t>(types.size())),
      band_(bands(modes_)),
      m_(modes_.size(), 0.0),
      cost_(types_),
      other_(types_),
      before_(types_),
      others_(types_) {
  for (std::size_t i = 0; i < types_; ++i) {
    pairs_.push_back(types.item[i].pairs);
    tokens_.push_back(static_cast<double>(types.item[i].tokens));
    count_.push_back(types.count[i]);
    double least = kInfinity;
    for (const Mode& mode : modes_)
      if (types.item[i].tokens <= mode.room) least = std::min(least, mode.seconds(types.item[i]));
    shortest_ = std::max(shortest_, least);
  }
  after_.resize(band_.size() * types_);
  band_cost_.resize((band_.size() - 1) * types_);
}

// cost = min(cost, the mode's), and what[i] its time / T or its slope in m, where that is less.
void SurrogateBound::lower(std::size_t mode, double m, double T, Other other, double* cost, double* what) {
  const Mode& k = modes_[mode];
  const double d = k.ranks, room = static_cast<double>(k.room), per_room = k.room > 0 ? 1.0 / room : 0.0, end = T * kSlack;
  const double of_time = d * (1.0 - m) / T, of_room = d * m * per_room;
  const double other_time = other == Other::time ? of_time : -d / T, other_room = other == Other::time ? 0.0 : d * per_room;
  for (std::size_t i = 0; i < types_; ++i) {
    const double t = k.per_pair * pairs_[i] + k.per_token * tokens_[i] + k.per_item, s = tokens_[i];
    const double here = of_time * t + of_room * s, there = other_time * t + other_room * s;
    const bool less = (t <= end) & (s <= room) & (here < cost[i]);
    cost[i] = less ? here : cost[i];
    what[i] = less ? there : what[i];
  }
  work_ += static_cast<std::int64_t>(types_);
}

SurrogateBound::Value SurrogateBound::sum(double T) {
  std::fill(cost_.begin(), cost_.end(), kInfinity);
  std::fill(other_.begin(), other_.end(), 0.0);
  for (std::size_t k = 0; k < modes_.size(); ++k) lower(k, m_[k], T, Other::time, cost_.data(), other_.data());
  Value value;
  for (std::size_t i = 0; i < types_; ++i) value.ranks += count_[i] * cost_[i], value.other += count_[i] * other_[i];
  return value;
}

double SurrogateBound::ranks(double T) { return sum(T).ranks; }

double SurrogateBound::profit(const Item& item, double T) const {
  double least = kInfinity;
  for (std::size_t k = 0; k < modes_.size(); ++k) {
    const Mode& mode = modes_[k];
    const double t = mode.seconds(item), s = static_cast<double>(item.tokens);
    if (t > T * kSlack || item.tokens > mode.room) continue;
    const double of_room = mode.room > 0 ? m_[k] * s / static_cast<double>(mode.room) : 0.0;
    least = std::min(least, mode.ranks * ((1.0 - m_[k]) * t / T + of_room));
  }
  return least;
}

// The sum where band b has multiplier m and the other bands cost `others`; leaves the band's costs in cost_.
SurrogateBound::Value SurrogateBound::band(std::size_t b, double m, double T, const double* others) {
  std::fill(cost_.begin(), cost_.end(), kInfinity);
  std::fill(other_.begin(), other_.end(), 0.0);
  for (std::size_t k = band_[b]; k < band_[b + 1]; ++k) lower(k, m, T, Other::slope, cost_.data(), other_.data());
  Value value;
  for (std::size_t i = 0; i < types_; ++i) {
    const bool here = cost_[i] < others[i];
    value.ranks += count_[i] * (here ? cost_[i] : others[i]);
    value.other += here ? count_[i] * other_[i] : 0.0;
  }
  return value;
}

// The best multiplier of band b: a concave function's maximum lies below the intersection of the tangents around it.
void SurrogateBound::climb(std::size_t b, double T, const double* others) {
  double* kept = band_cost_.data() + b * types_;
  struct Point {
    double m;
    Value value;
  };
  const auto at = [&](double m) { return Point{m, band(b, m, T, others)}; };
  Point best = at(m_[band_[b]]);
  std::copy(cost_.begin(), cost_.end(), kept);
  const auto see = [&](const Point& point) {
    if (point.value.ranks <= best.value.ranks) return;
    best = point;
    std::copy(cost_.begin(), cost_.end(), kept);
  };
  const bool up = best.value.other > 0.0;
  if (best.value.other == 0.0 || best.m == (up ? 1.0 : 0.0)) return;
  Point low = best, high = best;
  Point& far = up ? high : low;
  far = at(up ? 1.0 : 0.0);
  see(far);
  for (int look = 0; look < kTangents && low.value.other > 0.0 && high.value.other < 0.0; ++look) {
    const double rise = (high.value.ranks - low.value.ranks) - high.value.other * (high.m - low.m);
    const double m = low.m + std::clamp(rise / (low.value.other - high.value.other), 0.0, high.m - low.m);
    if (low.value.ranks + low.value.other * (m - low.m) <= best.value.ranks + 0.1 * kEnough * ranks_) break;
    const Point middle = at(m);
    see(middle);
    (middle.value.other > 0.0 ? low : high) = middle;
  }
  for (std::size_t k = band_[b]; k < band_[b + 1]; ++k) m_[k] = best.m;
}

// One turn: each band climbs while the other bands seem dearer by a factor of 1 + ahead. Returns the true sum.
double SurrogateBound::turn(double T, double ahead) {
  const std::size_t bands = band_.size() - 1;
  std::vector<double>&before = before_, &others = others_;
  // Cheapest in bands b, b + 1, ...: those are as they were when the turn reaches b.
  std::fill(after_.end() - static_cast<std::ptrdiff_t>(types_), after_.end(), kInfinity);
  for (std::size_t b = bands; b-- > 0;) {
    double* row = after_.data() + b * types_;
    const double* own = band_cost_.data() + b * types_;
    for (std::size_t i = 0; i < types_; ++i) row[i] = std::min(row[types_ + i], own[i]);
  }
  std::fill(before.begin(), before.end(), kInfinity);
  for (std::size_t b = 0; b < bands; ++b) {
    const double *later = after_.data() + (b + 1) * types_, *own = band_cost_.data() + b * types_;
    for (std::size_t i = 0; i < types_; ++i) others[i] = (1.0 + ahead) * std::min(before[i], later[i]);
    climb(b, T, others.data());
    for (std::size_t i = 0; i < types_; ++i) before[i] = std::min(before[i], own[i]);
  }
  double sum = 0.0;
  for (std::size_t i = 0; i < types_; ++i) sum += count_[i] * before[i];
  return sum;
}

double SurrogateBound::ascend(double T) {
  for (std::size_t b = 0; b + 1 < band_.size(); ++b) {
    double* own = band_cost_.data() + b * types_;
    std::fill(own, own + types_, kInfinity);
    for (std::size_t k = band_[b]; k < band_[b + 1]; ++k) lower(k, m_[k], T, Other::time, own, other_.data());
  }
  double best = ranks(T);
  std::vector<double> kept = m_;
  for (const double ahead : kAhead)
    for (int t = 0; t < kTurns; ++t) {
      const double now = turn(T, ahead);
      const bool gained = now > best + kEnough * ranks_;
      if (now > best) best = now, kept = m_;
      if (!gained) break;
    }
  m_ = std::move(kept);
  return best;
}

// The largest T that the present m refutes, `from` or more, rounded up by at most 1e-9; `from` itself must be refuted.
double SurrogateBound::longest_refuted(double from) {
  double low = from, high = kInfinity;
  for (int look = 0; look < kRoots && high > low * kUp; ++look) {
    // The chosen modes stay open for larger T, where they need time * T' / T less: an upper bound, so its root is too large.
    const double at = look == 0 ? low : high;
    if (std::isinf(at)) {
      if (low > 1e200) return kInfinity;
      const double far = 2.0 * low;
      (ranks(far) > ranks_ * kRounding ? low : high) = far;
      continue;
    }
    const Value value = sum(at);
    double next = value.ranks - value.other < ranks_ ? at * value.other / (ranks_ - (value.ranks - value.other)) : kInfinity;
    if (look == 0) {
      high = next;
      if (std::isfinite(high)) high = std::max(high, low);
      continue;
    }
    // Below `high` the root of its tangent; where modes open in between, it may be refuted.
    if (look % 4 == 3 || !(next > low && next < high)) next = 0.5 * (low + high);
    next = std::max(next, low * kUp);
    (ranks(next) > ranks_ * kRounding ? low : high) = next;
  }
  return low;
}

double SurrogateBound::makespan(bool raise) {
  if (shortest_ == kInfinity) return kInfinity;
  if (types_ == 0 || shortest_ <= 0.0) return proven_;
  proven_ = std::max(proven_, shortest_ * kDown);
  double T = std::max(proven_, shortest_);
  if (ranks(T) > ranks_ * kRounding) T = longest_refuted(T);
  for (int rise = 0; raise && rise < kRises && std::isfinite(T); ++rise) {
    if (ascend(T) <= ranks_ * kRounding) break;
    const double before = T;
    T = longest_refuted(T);
    if (T <= before * (1.0 + 10.0 * kEnough)) break;
  }
  return proven_ = std::max(proven_, T * kDown);
}

SurrogateMakespan surrogate_makespan(const Instance& instance) {
  ItemTypes exact = make_types(instance.items), coarse = exact;
  const std::vector<std::int32_t> thin = thinned(instance.modes);
  const auto most = static_cast<int>(std::max<std::size_t>(kCoarseTypes, kVisits / instance.modes.size()));
  for (double width = 0.001; exact.size() > most; width *= 2.0) exact = make_types(instance.items, width);
  for (double width = 0.001; coarse.size() > kCoarseTypes; width *= 2.0) coarse = make_types(instance.items, width);
  SurrogateBound prover(instance, exact);
  const bool rounded = coarse.size() < exact.size() || thin.size() < instance.modes.size();
  if (rounded) {
    Instance fewer{instance.ranks, instance.ranks_per_node, {}, {}};
    for (const auto k : thin) fewer.modes.push_back(instance.modes[k]);
    SurrogateBound finder(fewer, coarse);
    (void)finder.makespan();
    std::vector<double> m;
    for (std::size_t k = 0, t = 0; k < instance.modes.size(); ++k) {
      while (t + 1 < thin.size() && static_cast<std::size_t>(thin[t + 1]) <= k) ++t;
      m.push_back(finder.multipliers()[t]);
    }
    prover.set_multipliers(m);
  }
  const double seconds = prover.makespan(!rounded);
  return {seconds, prover.multipliers()};
}

}  // namespace hetsp::packing
