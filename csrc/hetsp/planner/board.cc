#include "hetsp/planner/board.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "hetsp/planner/cut.h"

namespace hetsp::planner {

namespace {

std::vector<int> degrees_to_try(int max_degree) {
  std::vector<int> degrees;
  for (int degree = 1; degree < max_degree; degree += std::max(1, degree / 50)) degrees.push_back(degree);
  degrees.push_back(max_degree);
  return degrees;
}

}  // namespace

Board::Board(const SequenceSeconds& seconds, std::vector<std::int64_t> tokens, int ranks, std::int64_t capacity,
             int micro_batches)
    : seconds_(seconds),
      tokens_(std::move(tokens)),
      capacity_(capacity),
      degrees_(degrees_to_try(seconds.max_degree())),
      load_(ranks),
      used_(micro_batches, std::vector<std::int64_t>(ranks)),
      filled_(micro_batches),
      members_(ranks),
      order_(ranks),
      places_(tokens_.size()),
      marked_(ranks) {
  for (const auto count : tokens_) least_.push_back(least_degree(count, capacity, seconds.max_degree()));
  std::iota(order_.begin(), order_.end(), 0);
}

void Board::clear() {
  std::fill(load_.begin(), load_.end(), 0.0);
  for (auto& used : used_) std::fill(used.begin(), used.end(), 0);
  std::fill(filled_.begin(), filled_.end(), 0);
  for (auto& members : members_) members.clear();
  for (auto& place : places_) place.ranks.clear();
  std::iota(order_.begin(), order_.end(), 0);
  total_ = 0.0;
  recording_ = false;
}

bool Board::has_room(int sequence, int degree, int micro_batch, int rank) const {
  return used_[micro_batch][rank] + most_tokens_held(tokens_[sequence], degree) <= capacity_;
}

int Board::last_rank(std::int64_t held, int degree, int micro_batch) {
  const auto& used = used_[micro_batch];
  int found = 0;
  for (std::size_t i = 0; i < order_.size(); ++i) {
    if (used[order_[i]] + held > capacity_) continue;
    if (++found == degree) {
      work_ += static_cast<std::int64_t>(i) + 1;
      return order_[i];
    }
  }
  work_ += ranks();
  return -1;
}

std::optional<Spot> Board::find(int sequence, int least_degree, double target) {
  const int least = std::max(least_degree, least_[sequence]);
  double lowest = std::numeric_limits<double>::infinity();
  int best_degree = 0, best_micro_batch = 0;
  const auto worth = [&](double height) { return height < lowest * 0.999 || (height <= target && target < lowest); };
  auto degree = std::lower_bound(degrees_.begin(), degrees_.end(), least);
  for (std::ptrdiff_t tried = 0; degree != degrees_.end();
       ++tried, degree += std::min(1 + tried / 6, degrees_.end() - degree)) {
    if (load_[order_[*degree - 1]] >= lowest) break;  // that many ranks end higher, whatever their share
    const double seconds = seconds_(sequence, *degree);
    if (!worth(load_[order_[*degree - 1]] + seconds)) continue;
    const std::int64_t held = most_tokens_held(tokens_[sequence], *degree);
    double height = std::numeric_limits<double>::infinity();
    int micro_batch = 0;
    for (int m = 0; m < static_cast<int>(used_.size()); ++m) {
      const int last = last_rank(held, *degree, m);
      if (last < 0) continue;
      const double end = load_[last] + seconds;
      if (end < height || (end == height && filled_[m] < filled_[micro_batch])) height = end, micro_batch = m;
    }
    if (worth(height)) lowest = height, best_degree = *degree, best_micro_batch = micro_batch;
    if (lowest <= target) break;
  }
  if (best_degree == 0) return std::nullopt;
  Spot spot{{best_micro_batch, {}}, lowest};
  spot.place.ranks.reserve(best_degree);
  const std::int64_t held = most_tokens_held(tokens_[sequence], best_degree);
  for (std::size_t i = 0; static_cast<int>(spot.place.ranks.size()) < best_degree; ++i)
    if (used_[best_micro_batch][order_[i]] + held <= capacity_) spot.place.ranks.push_back(order_[i]);
  std::sort(spot.place.ranks.begin(), spot.place.ranks.end());
  return spot;
}

std::optional<Spot> Board::pack(int sequence, int least_degree, double target, double tightness) {
  constexpr int kDegrees = 4, kExtra = 32;  // degrees tried; ranks beyond two windows that are looked at
  const int least = std::max(least_degree, least_[sequence]);
  double lowest = std::numeric_limits<double>::infinity();
  Spot spot{{}, 0.0};
  auto degree = std::lower_bound(degrees_.begin(), degrees_.end(), least);
  for (int tried = 0; degree != degrees_.end() && tried < kDegrees; ++degree, ++tried) {
    const int d = *degree;
    const double seconds = seconds_(sequence, d), ceiling = target - seconds;
    if (load_[order_[d - 1]] > ceiling) continue;
    const std::int64_t held = most_tokens_held(tokens_[sequence], d);
    for (int m = 0; m < static_cast<int>(used_.size()); ++m) {
      collect_roomy(held, m, ceiling, 2 * d + kExtra);
      const int count = static_cast<int>(roomy_.size());
      double sum = 0.0;  // of the loads in the window [first, first + d)
      for (int i = 0; i < std::min(d - 1, count); ++i) sum += load_[roomy_[i]];
      for (int first = 0; first + d <= count; ++first) {
        const double top = load_[roomy_[first]];
        sum += load_[roomy_[first + d - 1]];
        const double score = d * seconds + (d * top - sum) + tightness * d * (ceiling - top);
        sum -= top;
        if (score >= lowest * (1.0 - 1e-9)) continue;
        lowest = score;
        spot.height = top + seconds;
        spot.place.micro_batch = m;
        spot.place.ranks.assign(roomy_.begin() + first, roomy_.begin() + first + d);
      }
    }
  }
  if (spot.place.ranks.empty()) return std::nullopt;
  std::sort(spot.place.ranks.begin(), spot.place.ranks.end());
  return spot;
}

void Board::collect_roomy(std::int64_t held, int micro_batch, double ceiling, int most) {
  roomy_.clear();
  auto end = std::upper_bound(order_.begin(), order_.end(), ceiling,
                              [this](double level, std::int32_t r) { return level < load_[r]; });
  while (end != order_.begin() && static_cast<int>(roomy_.size()) < most) {
    --end, ++work_;
    if (used_[micro_batch][*end] + held <= capacity_) roomy_.push_back(*end);
  }
}

void Board::place(int sequence, Place place) {
  places_[sequence] = std::move(place);
  for (const auto rank : places_[sequence].ranks) members_[rank].push_back(sequence);
  add(sequence, 1.0);
}

Place Board::remove(int sequence) {
  add(sequence, -1.0);
  for (const auto rank : places_[sequence].ranks) {
    auto& members = members_[rank];
    *std::find(members.begin(), members.end(), sequence) = members.back();
    members.pop_back();
  }
  if (recording_) journal_.emplace_back(sequence, places_[sequence]);
  return std::exchange(places_[sequence], Place{});
}

void Board::add(int sequence, double sign) {
  const Place& at = places_[sequence];
  const int count = static_cast<int>(at.ranks.size());
  const double seconds = sign * seconds_(sequence, count);
  const std::int64_t held = static_cast<std::int64_t>(sign) * most_tokens_held(tokens_[sequence], count);
  for (const auto rank : at.ranks) used_[at.micro_batch][rank] += held;
  filled_[at.micro_batch] += held * count;
  total_ += seconds * count;
  constexpr int kFew = 8;  // ranks that are cheaper to move one by one than to merge
  if (count <= kFew) {
    for (const auto rank : at.ranks) shift(rank, seconds);
  } else {
    for (const auto rank : at.ranks) load_[rank] += seconds;
    reorder(at.ranks);
  }
}

void Board::shift(std::int32_t rank, double seconds) {
  const auto before = [this](std::int32_t a, std::int32_t b) { return load_[a] != load_[b] ? load_[a] < load_[b] : a < b; };
  const auto old = std::lower_bound(order_.begin(), order_.end(), rank, before);
  load_[rank] += seconds;
  if (seconds >= 0.0)
    std::rotate(old, old + 1, std::lower_bound(old + 1, order_.end(), rank, before));
  else
    std::rotate(std::lower_bound(order_.begin(), old, rank, before), old, old + 1);
  work_ += 4 + ranks() / 16;
}

void Board::reorder(const std::vector<std::int32_t>& changed) {
  const auto before = [this](std::int32_t a, std::int32_t b) { return load_[a] != load_[b] ? load_[a] < load_[b] : a < b; };
  for (const auto rank : changed) marked_[rank] = true;
  kept_.clear();
  for (const auto rank : order_)
    if (!marked_[rank]) kept_.push_back(rank);
  for (const auto rank : changed) marked_[rank] = false;
  moved_ = changed;
  std::sort(moved_.begin(), moved_.end(), before);
  std::merge(kept_.begin(), kept_.end(), moved_.begin(), moved_.end(), order_.begin(), before);
  work_ += ranks();
}

void Board::begin() {
  recording_ = true;
  journal_.clear();
}

void Board::rollback() {
  recording_ = false;
  for (auto entry = journal_.rbegin(); entry != journal_.rend(); ++entry) {
    if (!places_[entry->first].ranks.empty()) remove(entry->first);
    place(entry->first, std::move(entry->second));
  }
  journal_.clear();
}

}  // namespace hetsp::planner
