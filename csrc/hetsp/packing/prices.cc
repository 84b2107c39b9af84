#include "hetsp/packing/prices.h"

#include <algorithm>
#include <array>
#include <limits>

namespace hetsp::packing {

namespace {
constexpr std::size_t kSingles = 24, kStrata = 96;  // the longest one by one, the rest in so many neighbourhoods
}

Prices::Prices(const Instance& instance)
    : instance_(&instance),
      time_share_(instance.modes.size(), 1.0),
      time_taken_(instance.modes.size(), 0.0),
      room_taken_(instance.modes.size(), 0.0) {
  const std::size_t items = instance.items.size(), rest = items - std::min(items, kSingles);
  for (std::size_t i = 0; i < items - rest; ++i) strata_.push_back({instance.items[i], 1.0});
  for (std::size_t s = 0; s < kStrata; ++s) {
    const std::size_t begin = items - rest + rest * s / kStrata, end = items - rest + rest * (s + 1) / kStrata;
    Sums sums;
    for (std::size_t i = begin; i < end; ++i) sums.add(instance.items[i]);
    if (begin == end) continue;
    const auto count = static_cast<std::int64_t>(end - begin);
    strata_.push_back({{sums.tokens / count, sums.pairs / static_cast<double>(count)}, static_cast<double>(count)});
  }
}

double Prices::round(const Need& need, double step) {
  std::fill(time_taken_.begin(), time_taken_.end(), 0.0);
  std::fill(room_taken_.begin(), room_taken_.end(), 0.0);
  double sum = 0.0;
  std::array<std::int32_t, Need::kCandidates> sizes{};
  for (const Stratum& stratum : strata_) {
    const auto count = need.candidates(stratum.mean, sizes);
    if (count == 0) return std::numeric_limits<double>::infinity();
    double least = std::numeric_limits<double>::infinity(), time = 0.0, room = 0.0;
    std::int32_t best = -1;
    for (int c = 0; c < count; ++c)
      for (auto m = need.first_mode(sizes[c]); m < need.end_mode(sizes[c]); ++m) {
        const Mode& mode = instance_->modes[m];
        const double t = mode.seconds(stratum.mean) / need.target();
        const double r = mode.room == 0 ? 0.0 : static_cast<double>(stratum.mean.tokens) / static_cast<double>(mode.room);
        if (t > 1.0 || r > 1.0) continue;
        const double cost = mode.ranks * (time_share_[m] * t + (1.0 - time_share_[m]) * r);
        if (cost < least) least = cost, best = m, time = mode.ranks * t, room = mode.ranks * r;
      }
    if (best < 0) continue;  // a mean that only just fits; its neighbours decide
    sum += stratum.count * least;
    time_taken_[best] += stratum.count * time, room_taken_[best] += stratum.count * room;
  }
  for (std::size_t m = 0; m < time_share_.size(); ++m) {
    const double both = time_taken_[m] + room_taken_[m];
    if (both > 0.0) time_share_[m] = std::clamp(time_share_[m] + step * (time_taken_[m] - room_taken_[m]) / both, 0.0, 1.0);
  }
  return sum;
}

double Prices::descend(const Need& need, int rounds) {
  double most = 0.0;
  for (int r = 0; r < rounds; ++r) most = std::max(most, round(need, 0.3 / (1.0 + 0.15 * r)));
  return most;
}

double Prices::rough_target(std::int64_t ranks) {
  Need need(*instance_);
  const auto refuted = [&](double target) {
    need.set_target(target);
    return descend(need, 3) > static_cast<double>(ranks);
  };
  const Mode& small = instance_->modes.front();
  double low = 0.0;
  for (const Item& item : instance_->items) low += small.seconds(item) * small.ranks / static_cast<double>(ranks);
  if (low <= 0.0) return 0.0;
  while (low > 1e-30 && !refuted(low)) low *= 0.5;
  double high = low * 1.3;
  while (refuted(high)) {
    if (high > 1e30) return std::numeric_limits<double>::infinity();
    low = high, high *= 1.3;
  }
  while (high > 1.01 * low) {
    const double middle = 0.5 * (low + high);
    (refuted(middle) ? low : high) = middle;
  }
  return high;
}

}  // namespace hetsp::packing
