#include "hetsp/packing/need.h"

#include <cmath>

namespace hetsp::packing {

namespace {
// A set that fills a room exactly must fit after rounding; one more token than 2^49 still does not.
constexpr double kBelowOne = 1.0 - 0x1.0p-50;
constexpr double kNoRoom = 1e30;  // a token where there is no room: a load above 1 that stays finite
}  // namespace

Need::Need(const Instance& instance) : instance_(&instance), modes_(instance.modes.size()) {
  for (std::size_t m = 0; m < instance.modes.size(); ++m) {
    const Mode& mode = instance.modes[m];
    if (sizes_.empty() || sizes_.back().ranks != mode.ranks)
      sizes_.push_back({mode.ranks, static_cast<std::int32_t>(m), static_cast<std::int32_t>(m)});
    sizes_.back().end = static_cast<std::int32_t>(m) + 1;
    modes_[m].per_room = mode.room == 0 ? kNoRoom : kBelowOne / static_cast<double>(mode.room);
  }
  size_at_least_.assign(instance.ranks + 1, sizes());
  for (std::int32_t s = sizes() - 1; s >= 0; --s)
    for (std::int32_t r = sizes_[s].ranks; r >= 0 && size_at_least_[r] > s; --r) size_at_least_[r] = s;
  may_skip_ = never_falls();
  set_target(1.0);
}

bool Need::never_falls() const {
  constexpr double kSame = 1.0 - 1e-13;  // below the rounding that least() allows for
  const auto dominates = [&](const Mode& small, const Mode& large) {
    const double a = small.ranks, b = large.ranks;
    return large.per_pair * b >= small.per_pair * a * kSame && large.per_token * b >= small.per_token * a * kSame &&
           large.per_item * b >= small.per_item * a * kSame &&
           static_cast<double>(small.room) / a >= static_cast<double>(large.room) / b * kSame;
  };
  for (std::int32_t s = 1; s < sizes(); ++s)
    for (std::int32_t m = sizes_[s].first; m < sizes_[s].end; ++m) {
      bool dominated = false;
      for (std::int32_t below = sizes_[s - 1].first; below < sizes_[s - 1].end && !dominated; ++below)
        dominated = dominates(instance_->modes[below], instance_->modes[m]);
      if (!dominated) return false;
    }
  return true;
}

void Need::set_target(double seconds) {
  target_ = seconds;
  for (std::size_t m = 0; m < modes_.size(); ++m) {
    const Mode& mode = instance_->modes[m];
    modes_[m].per_pair = mode.per_pair / seconds;
    modes_[m].per_token = mode.per_token / seconds;
    modes_[m].per_item = mode.per_item / seconds;
  }
}

std::int32_t Need::mode(std::int32_t size, const Sums& sums) const {
  std::int32_t best = sizes_[size].first;
  for (std::int32_t m = best + 1; m < sizes_[size].end; ++m)
    if (load_of_mode(modes_[m], sums) < load_of_mode(modes_[best], sums)) best = m;
  return best;
}

std::int32_t Need::least(const Sums& sums, std::int32_t from) const {
  for (std::int32_t s = from; s < sizes();) {
    const double loaded = load(s, sums);
    if (loaded <= 1.0) return s;
    if (!may_skip_) {
      ++s;
      continue;
    }
    const double ranks = std::min(std::ceil(loaded * sizes_[s].ranks * (1.0 - 1e-9)), static_cast<double>(instance_->ranks));
    s = std::max(s + 1, size_at_least_[static_cast<std::int32_t>(ranks)]);
  }
  return sizes();
}

int Need::candidates(const Item& item, std::array<std::int32_t, kCandidates>& found) const {
  Sums sums;
  sums.add(item);
  int count = 0;
  for (std::int32_t s = least(sums), step = 1; s < sizes() && count < kCandidates; s += step) {
    found[count++] = s;
    if (count > 2) step *= 2;
  }
  return count;
}

}  // namespace hetsp::packing
