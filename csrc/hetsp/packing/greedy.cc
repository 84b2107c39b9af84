#include "hetsp/packing/greedy.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {
constexpr int kLook = 6;  // bins of a kind that are looked at for an item
}

Greedy::Greedy(const Instance& instance, int micro_batches)
    : instance_(&instance),
      needs_(micro_batches, Need(instance)),
      timeless_(micro_batches, false),
      kinds_(micro_batches * instance.modes.size()),
      bin_of_(instance.items.size(), -1) {
  for (std::size_t j = 0; j < kinds_.size(); ++j) {
    kinds_[j].micro_batch = static_cast<std::int32_t>(j / instance.modes.size());
    kinds_[j].mode = static_cast<std::int32_t>(j % instance.modes.size());
  }
  open_.reserve(instance.items.size());
}

Greedy::Weights Greedy::Weights::draw(Random& random, const Instance& instance, const std::vector<double>& time_share) {
  Weights w;
  w.slack = random.between(1e-3, 1.0);
  w.extra = random.between(0.1, 10.0);
  w.tokens = random.between(1e-4, 1.0);
  w.time_share = time_share;
  if (random.chance(0.5)) w.noise = 0.3 * random.uniform();
  w.open = random.between(0.03, 3.0);
  if (random.chance(0.3))
    for (double& p : w.time_share) p = std::min(1.0, p + random.uniform());
  if (random.chance(0.8)) w.waste = random.between(0.01, 0.5);
  if (random.chance(0.4)) w.per_mode.resize(instance.modes.size());
  for (double& x : w.per_mode) x = std::exp(0.8 * (random.uniform() - 0.5));
  return w;
}

Greedy::Weights Greedy::Weights::near(Random& random) const {
  Weights w = *this;
  for (double* x : {&w.slack, &w.extra, &w.tokens, &w.open, &w.waste})
    if (random.chance(0.5)) *x *= random.between(0.5, 2.0);
  if (w.per_mode.empty()) w.per_mode.assign(w.time_share.size(), 1.0);
  for (double& x : w.per_mode)
    if (random.chance(0.3)) x *= random.between(0.8, 1.25);
  for (double& p : w.time_share)
    if (random.chance(0.2)) p = std::clamp(p + 0.3 * (random.uniform() - 0.5), 0.0, 1.0);
  return w;
}

double Greedy::time(const Kind& kind, const Item& item) const {
  const Mode& mode = instance_->modes[kind.mode];
  if (timeless_[kind.micro_batch])
    return mode.room == 0 ? 0.0 : static_cast<double>(item.tokens) / static_cast<double>(mode.room);
  return mode.seconds(item) / needs_[kind.micro_batch].target();
}

double Greedy::cost(const Kind& kind, const Item& item, const Weights& weights) const {
  const Mode& mode = instance_->modes[kind.mode];
  double part = time(kind, item);
  if (!weights.time_share.empty() && mode.room > 0) {
    const double share = weights.time_share[kind.mode];
    part = share * part + (1.0 - share) * static_cast<double>(item.tokens) / static_cast<double>(mode.room);
  }
  return part * kind.worth * (weights.per_mode.empty() ? 1.0 : weights.per_mode[kind.mode]);
}

std::int32_t Greedy::level(double time_left) {
  return std::clamp(static_cast<std::int32_t>(time_left * kLevels), 0, kLevels - 1);
}

void Greedy::link(std::int32_t bin) {
  Open& open = open_[bin];
  Kind& kind = kinds_[open.kind];
  const std::int64_t room = instance_->modes[kind.mode].room;
  const double room_left = room == 0 ? 1.0 : static_cast<double>(open.tokens_left) / static_cast<double>(room);
  open.level = level(std::min(open.time_left, room_left));
  const bool others = (kind.levels >> open.level & 1) != 0;
  open.before = -1;
  open.next = others ? kind.first[open.level] : -1;
  if (others) open_[open.next].before = bin;
  kind.first[open.level] = bin;
  kind.levels |= std::uint64_t{1} << open.level;
}

void Greedy::unlink(std::int32_t bin) {
  const Open& open = open_[bin];
  Kind& kind = kinds_[open.kind];
  (open.before < 0 ? kind.first[open.level] : open_[open.before].next) = open.next;
  if (open.next >= 0) open_[open.next].before = open.before;
  if (kind.first[open.level] < 0) kind.levels &= ~(std::uint64_t{1} << open.level);
}

std::int32_t Greedy::open(std::int32_t kind) {
  const Mode& mode = instance_->modes[kinds_[kind].mode];
  left_[kinds_[kind].micro_batch] -= mode.ranks;
  if (kinds_[kind].levels == 0) used_.push_back(kind);
  open_.push_back({1.0, mode.room, kind, 0, -1, -1});
  link(static_cast<std::int32_t>(open_.size()) - 1);
  return static_cast<std::int32_t>(open_.size()) - 1;
}

void Greedy::enter(std::int32_t item, std::int32_t bin) {
  unlink(bin);
  open_[bin].time_left -= time(kinds_[open_[bin].kind], instance_->items[item]);
  open_[bin].tokens_left -= instance_->items[item].tokens;
  bin_of_[item] = bin;
  link(bin);
}

void Greedy::consider(std::int32_t kind, const Item& item, const Weights& weights, Random& random, bool affordable,
                      Choice& best) {
  const Mode& mode = instance_->modes[kinds_[kind].mode];
  ++visits_;
  if (item.tokens > mode.room || time(kinds_[kind], item) > 1.0) return;
  if (affordable && mode.ranks > left_[kinds_[kind].micro_batch]) return;
  double c = cost(kinds_[kind], item, weights);
  if (weights.waste > 0.0) {
    const double room = mode.room == 0 ? 0.0 : static_cast<double>(item.tokens) / static_cast<double>(mode.room);
    c *= 1.0 + weights.waste * std::max(room, time(kinds_[kind], item));
  }
  if (weights.noise > 0.0) c *= 1.0 + weights.noise * (random.uniform() - 0.5);
  if (weights.largest) c = -mode.ranks;
  if (best.at < 0 || c < best.cost) best = {kind, c};
}

Greedy::Choice Greedy::own(const Item& item, const Weights& weights, Random& random, bool affordable) {
  Choice best;
  const auto modes = static_cast<std::int32_t>(instance_->modes.size());
  std::array<std::int32_t, Need::kCandidates> sizes{};
  for (int k = 0; k < static_cast<int>(needs_.size()); ++k) {
    for (std::int32_t m = modes - 1; weights.largest && m >= 0 && best.at < 0; --m)
      consider(k * modes + m, item, weights, random, affordable, best);
    if (weights.largest) continue;
    const Need& need = needs_[k];
    const int count = need.candidates(item, sizes);
    for (int c = 0; c < count; ++c)
      for (auto m = need.first_mode(sizes[c]); m < need.end_mode(sizes[c]); ++m)
        consider(k * modes + m, item, weights, random, affordable, best);
  }
  return best;
}

Greedy::Choice Greedy::fullest(const Item& item, double own_cost, double limit, const Weights& weights, Random& random) {
  Choice best;
  double least = std::numeric_limits<double>::infinity();
  for (const auto at : used_) {
    const Kind& kind = kinds_[at];
    const Mode& mode = instance_->modes[kind.mode];
    const double per_room = mode.room == 0 ? 0.0 : 1.0 / static_cast<double>(mode.room);
    const double t = time(kind, item), r = static_cast<double>(item.tokens) * per_room;
    const double there = cost(kind, item, weights);
    if (t > 1.0 || r > 1.0 || there > limit) continue;
    const double share = weights.time_share.empty() ? 1.0 : weights.time_share[kind.mode];
    bool found = false;
    const auto look = [&](std::uint64_t levels) {
      int looked = 0;
      for (; levels != 0 && looked < kLook && !found; levels &= levels - 1)
        for (auto b = kind.first[std::countr_zero(levels)]; b >= 0 && looked < kLook; b = open_[b].next) {
          const Open& bin = open_[b];
          ++looked;
          if (t > bin.time_left || item.tokens > bin.tokens_left) continue;
          found = true;
          const double room_left = static_cast<double>(bin.tokens_left - item.tokens) * per_room;
          const double left = share * (bin.time_left - t) + (1.0 - share) * room_left;
          double score = kind.worth * (weights.slack * left + weights.tokens * room_left) + weights.extra * (there - own_cost);
          if (weights.noise > 0.0) score *= 1.0 + weights.noise * random.uniform();
          if (score < least) least = score, best = {b, there};
        }
      visits_ += looked + 1;
    };
    // Best fit: where both resources may just suffice; else where they do for sure; else where only the scarcer one may.
    const int least_level = level(std::min(t, r)), sure_level = level(std::max(t, r));
    const std::uint64_t sure = sure_level + 1 == kLevels ? 0 : ~std::uint64_t{0} << (sure_level + 1);
    look(kind.levels & (std::uint64_t{1} << sure_level));
    if (!found) look(kind.levels & sure);
    if (!found && least_level < sure_level) look(kind.levels & ~sure & (~std::uint64_t{0} << least_level));
  }
  return best;
}

bool Greedy::pack(const std::vector<double>& targets, const Weights& weights, Random& random, Effort& effort,
                  std::vector<Packing>& packings) {
  for (std::size_t k = 0; k < targets.size(); ++k) {
    timeless_[k] = std::isinf(targets[k]);
    needs_[k].set_target(targets[k]);
  }
  for (Kind& kind : kinds_)
    kind.worth = instance_->modes[kind.mode].ranks * (timeless_[kind.micro_batch] ? 1.0 : targets[kind.micro_batch]);
  for (const auto kind : used_) kinds_[kind].levels = 0;
  used_.clear(), open_.clear();
  left_.assign(targets.size(), instance_->ranks);
  for (std::size_t i = 0; i < instance_->items.size(); ++i) {
    const Item& item = instance_->items[i];
    visits_ = 0;
    const Choice mode = own(item, weights, random, false);
    if (mode.at < 0) return false;
    constexpr double kAny = std::numeric_limits<double>::infinity();
    Choice bin = fullest(item, mode.cost, weights.largest ? kAny : (1.0 + weights.open) * mode.cost, weights, random);
    if (bin.at < 0) {
      const Choice opened = left_[kinds_[mode.at].micro_batch] >= instance_->modes[kinds_[mode.at].mode].ranks
                                ? mode
                                : own(item, weights, random, true);
      bin = opened.at >= 0 ? Choice{open(opened.at), 0.0} : fullest(item, mode.cost, kAny, weights, random);
    }
    if (bin.at < 0 || !effort.spend(visits_)) return false;
    enter(static_cast<std::int32_t>(i), bin.at);
  }
  packings.assign(targets.size(), {});
  std::vector<std::int32_t> place(open_.size());
  for (std::size_t b = 0; b < open_.size(); ++b) {
    auto& bins = packings[kinds_[open_[b].kind].micro_batch].bins;
    place[b] = static_cast<std::int32_t>(bins.size());
    bins.push_back({kinds_[open_[b].kind].mode, {}});
  }
  for (std::size_t i = 0; i < bin_of_.size(); ++i)
    packings[kinds_[open_[bin_of_[i]].kind].micro_batch].bins[place[bin_of_[i]]].items.push_back(static_cast<std::int32_t>(i));
  for (Packing& packing : packings) packing.makespan = makespan(*instance_, packing.bins);
  return true;
}

}  // namespace hetsp::packing
