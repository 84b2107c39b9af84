#include "hetsp/packing/ruin.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace hetsp::packing {

namespace {
constexpr double kMissing = 1.0;          // ranks of E for a rank that is missing
constexpr std::size_t kAllGroups = 96;    // up to so many groups, all are candidates; beyond, a sample
constexpr int kSample = 40;
constexpr double kQuiet = 0.2, kLeastNoise = 0.02, kMostNoise = 3.0;  // steps without noise; of the mean group's ranks
constexpr int kTries = 8;                 // to find such a group
constexpr double kTogether = 0.04;        // probability of a step that gathers

constexpr std::int64_t kStepWork = 100;   // of a step beside its visits, in visits
constexpr std::size_t kMostItems = 24;    // taken out at once
constexpr double kBlinks[] = {0.02, 0.02, 0.1, 0.3};  // probability of not seeing a place, one drawn per step
}  // namespace

Ruin::Ruin(Partition& partition, std::uint64_t seed)
    : partition_(partition),
      random_(seed),
      stamp_(partition.instance().items.size() + partition.micro_batches(), 0),
      candidate_in_(stamp_.size(), 0) {}

std::int64_t Ruin::missing() const {
  std::int64_t sum = 0;
  for (int k = 0; k < partition_.micro_batches(); ++k) sum += partition_.missing(k);
  return sum;
}

double Ruin::mean_ranks() const {
  std::int64_t ranks = 0;
  for (int k = 0; k < partition_.micro_batches(); ++k) ranks += partition_.ranks(k);
  return static_cast<double>(ranks) / static_cast<double>(std::max<std::size_t>(1, partition_.open().size()));
}

double Ruin::energy() const { return partition_.cost() + kMissing * static_cast<double>(missing()); }

void Ruin::touch(std::int32_t g) {
  if (stamp_[g] == step_) return;
  stamp_[g] = step_;
  touched_.push_back({g, partition_.group(g), false});
}

void Ruin::take(std::int32_t item) {
  moved_.push_back({item, partition_.group_of(item)});
  touch(partition_.group_of(item));
  partition_.remove(item);
}

// All items of a group, or a few.
void Ruin::take_from(std::int32_t g) {
  taken_.clear();
  for (auto i = partition_.group(g).first; i >= 0; i = partition_.next(i)) taken_.push_back(i);
  const std::size_t room = kMostItems - std::min(kMostItems, moved_.size());
  std::size_t count = taken_.size();
  if (random_.chance(0.55)) count = 1 + random_.below(std::min<std::int64_t>(3, static_cast<std::int64_t>(count)));
  count = std::min(count, room);
  for (std::size_t j = 0; j < count; ++j) {
    std::swap(taken_[j], taken_[j + random_.below(static_cast<std::int64_t>(taken_.size() - j))]);
    take(taken_[j]);
  }
}

void Ruin::choose_groups() {
  const auto& open = partition_.open();
  candidates_.clear();
  const auto add = [&](std::int32_t g) {
    if (candidate_in_[g] == step_) return;
    candidate_in_[g] = step_;
    candidates_.push_back(g);
  };
  if (open.size() <= kAllGroups) {
    for (const auto g : open) add(g);
  } else {
    for (int j = 0; j < kSample; ++j) add(open[random_.below(static_cast<std::int64_t>(open.size()))]);
  }
  const int groups = 2 + random_.below(3);
  for (int j = 0; j < groups && !partition_.open().empty(); ++j) {
    const auto any = [&] { return partition_.open()[random_.below(static_cast<std::int64_t>(partition_.open().size()))]; };
    auto g = any();
    // The first one where ranks are missing: elsewhere a step alone wins nothing.
    for (int tries = 0; j == 0 && tries < kTries && partition_.missing(partition_.group(g).micro_batch) == 0; ++tries)
      g = any();
    add(g);
    take_from(g);
  }
}

bool Ruin::place(std::int32_t item) {
  const Item& what = partition_.instance().items[item];
  const auto over = [&](int k, std::int64_t more) {
    const std::int64_t now = partition_.ranks(k) - partition_.instance().ranks;
    return kMissing * static_cast<double>(std::max<std::int64_t>(0, now + more) - std::max<std::int64_t>(0, now));
  };
  double least = std::numeric_limits<double>::infinity();
  std::int32_t best = -1, best_micro_batch = 0;
  Partition::Entry best_entry{};
  std::uint64_t bits = 0;
  for (std::size_t c = 0; c < candidates_.size(); ++c) {
    bits = (c & 1) != 0 ? bits >> 32 : random_.next();
    if (static_cast<std::uint32_t>(bits) < blink_) continue;
    const Group& group = partition_.group(candidates_[c]);
    if (group.size < 0) continue;
    const auto entry = partition_.entry(what, group);
    const Need& need = partition_.need(group.micro_batch);
    if (entry.size == need.sizes()) continue;
    double rise = entry.cost - group.cost;
    if (entry.size != group.size) rise += over(group.micro_batch, need.ranks(entry.size) - need.ranks(group.size));
    rise += noise_ * static_cast<double>(bits & 0xffff);
    if (rise < least) least = rise, best = candidates_[c], best_entry = entry;
  }
  Group empty;
  for (int k = 0; k < partition_.micro_batches(); ++k) {
    empty.micro_batch = k;
    const auto entry = partition_.entry(what, empty);
    if (entry.size == partition_.need(k).sizes()) continue;
    double rise = entry.cost + over(k, partition_.need(k).ranks(entry.size));
    if (noise_ > 0.0) rise += noise_ * static_cast<double>(random_.next() & 0xffff);
    if (rise < least) least = rise, best = -2, best_micro_batch = k, best_entry = entry;
  }
  visits_ += static_cast<std::int64_t>(candidates_.size()) + partition_.micro_batches();
  if (best == -1) return false;
  if (best == -2) {
    best = partition_.empty_group(best_micro_batch);
    if (candidate_in_[best] != step_) candidate_in_[best] = step_, candidates_.push_back(best);
  }
  touch(best);
  partition_.insert(item, best, best_entry);
  return true;
}

// Most of what was taken out into one new group: no item alone would open a group as large as they need together.
void Ruin::place_together() {
  const int k = random_.below(partition_.micro_batches());
  const std::int32_t g = partition_.empty_group(k);
  for (const auto& moved : moved_) {
    if (random_.chance(0.2)) continue;
    const auto entry = partition_.entry(partition_.instance().items[moved.item], partition_.group(g));
    if (entry.size == partition_.need(k).sizes()) continue;
    touch(g);
    partition_.insert(moved.item, g, entry);
  }
  if (candidate_in_[g] != step_) candidate_in_[g] = step_, candidates_.push_back(g);
}

void Ruin::undo() {
  for (const auto& moved : moved_)
    if (partition_.group_of(moved.item) >= 0) partition_.remove(moved.item);
  // A group that lost all its items comes back as any empty one, perhaps under the number of another such.
  for (auto& touched : touched_) touched.kept_some = partition_.group(touched.g).size >= 0;
  for (const auto& touched : touched_) {
    if (touched.before.size < 0) continue;
    const std::int32_t g = touched.kept_some ? touched.g : partition_.empty_group(touched.before.micro_batch);
    for (const auto& moved : moved_)
      if (moved.from == touched.g) partition_.insert(moved.item, g, {touched.before.size, touched.before.cost});
    partition_.restore(g, touched.before);
  }
}

bool Ruin::insert(std::int32_t item, Effort& effort) {
  ++step_;
  visits_ = 0, blink_ = 0, noise_ = 0.0, moved_.clear(), touched_.clear(), candidates_.clear();
  for (const auto g : partition_.open()) candidates_.push_back(g);
  const bool placed = place(item);
  effort.spend(visits_);
  return placed;
}

bool Ruin::step(Effort& effort, double temperature) {
  ++step_;
  visits_ = 0, moved_.clear(), touched_.clear();
  blink_ = static_cast<std::uint32_t>(kBlinks[random_.below(std::size(kBlinks))] * 4294967296.0);
  noise_ = random_.chance(kQuiet) ? 0.0 : random_.between(kLeastNoise, kMostNoise) * mean_ranks() / 65536.0;
  const double before = energy();
  choose_groups();
  // Items come by falling size; now and then in another order.
  std::sort(moved_.begin(), moved_.end(), [](const Moved& a, const Moved& b) { return a.item < b.item; });
  if (random_.chance(0.25))
    for (std::size_t j = moved_.size(); j > 1; --j)
      std::swap(moved_[j - 1], moved_[random_.below(static_cast<std::int64_t>(j))]);
  if (!moved_.empty() && random_.chance(kTogether)) place_together();
  bool placed = true;
  for (std::size_t j = 0; placed && j < moved_.size(); ++j)
    placed = partition_.group_of(moved_[j].item) >= 0 || place(moved_[j].item);
  effort.spend(visits_ + kStepWork);
  const double rise = placed ? energy() - before : std::numeric_limits<double>::infinity();
  if (rise <= 0.0 || rise < -temperature * std::log(1.0 - random_.uniform())) return true;
  undo();
  return false;
}

}  // namespace hetsp::packing
