#include "hetsp/lp/markowitz.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::lp {

namespace {
constexpr double kThreshold = 0.1;      // multipliers stay below 10
constexpr double kSmallestPivot = 1e-11;  // of a scaled matrix, whose columns have entries near 1
constexpr double kDrop = 1e-15;
constexpr int kLinesLookedAt = 4;
}  // namespace

void Markowitz::Buckets::reset(int size) {
  first.assign(static_cast<std::size_t>(size) + 1, -1);
  next.assign(static_cast<std::size_t>(size), -1);
  previous.assign(static_cast<std::size_t>(size), -1);
  count.assign(static_cast<std::size_t>(size), 0);
}

void Markowitz::Buckets::insert(int line, int c) {
  count[line] = c;
  previous[line] = -1;
  next[line] = first[c];
  if (first[c] >= 0) previous[first[c]] = line;
  first[c] = line;
}

void Markowitz::Buckets::erase(int line) {
  if (previous[line] >= 0) {
    next[previous[line]] = next[line];
  } else {
    first[count[line]] = next[line];
  }
  if (next[line] >= 0) previous[next[line]] = previous[line];
}

void Markowitz::load(std::span<const std::span<const Entry>> columns) {
  size_ = static_cast<int>(columns.size());
  if (columns_.size() < columns.size()) columns_.resize(columns.size()), rows_.resize(columns.size());
  by_row_.reset(size_), by_column_.reset(size_);
  multiplier_.assign(columns.size(), 0.0);
  hit_.assign(columns.size(), 0);
  row_done_.assign(columns.size(), 0), column_done_.assign(columns.size(), 0);
  for (int i = 0; i < size_; ++i) rows_[i].clear();
  for (int c = 0; c < size_; ++c) {
    columns_[c].clear();
    for (const Entry& entry : columns[c]) {
      if (entry.value == 0.0) continue;
      columns_[c].push_back(entry);
      rows_[entry.index].push_back(c);
    }
    work_ += static_cast<std::int64_t>(columns_[c].size());
  }
  for (int i = size_ - 1; i >= 0; --i) {  // backwards: the first of a list is then the first line
    by_row_.insert(i, static_cast<int>(rows_[i].size()));
    by_column_.insert(i, static_cast<int>(columns_[i].size()));
  }
}

void Markowitz::look_at_column(int c, Choice& best, std::int64_t& merit) {
  double largest = 0.0;
  for (const Entry& entry : columns_[c]) largest = std::max(largest, std::abs(entry.value));
  work_ += static_cast<std::int64_t>(columns_[c].size());
  if (largest < kSmallestPivot) return drop_column(c);
  const std::int64_t others = static_cast<std::int64_t>(columns_[c].size()) - 1;
  for (const Entry& entry : columns_[c]) {
    if (std::abs(entry.value) < kThreshold * largest) continue;
    const std::int64_t m = others * (by_row_.count[entry.index] - 1);
    if (m < merit || (m == merit && std::abs(entry.value) > std::abs(best.value))) {
      merit = m;
      best = {entry.index, c, entry.value};
    }
  }
}

void Markowitz::look_at_row(int r, Choice& best, std::int64_t& merit) {
  const std::int64_t others = by_row_.count[r] - 1;
  for (const std::int32_t c : rows_[r]) {
    const std::int64_t m = others * (by_column_.count[c] - 1);
    if (m >= merit) continue;
    double largest = 0.0, value = 0.0;
    for (const Entry& entry : columns_[c]) {
      largest = std::max(largest, std::abs(entry.value));
      if (entry.index == r) value = entry.value;
    }
    work_ += static_cast<std::int64_t>(columns_[c].size());
    if (std::abs(value) < std::max(kThreshold * largest, kSmallestPivot)) continue;
    merit = m;
    best = {r, c, value};
  }
}

Markowitz::Choice Markowitz::choose() {
  Choice best;
  std::int64_t merit = std::numeric_limits<std::int64_t>::max();
  int looked = 0;
  for (int count = 1; count <= size_; ++count) {
    const std::int64_t least = static_cast<std::int64_t>(count - 1) * (count - 1);
    if (best.row >= 0 && merit <= least) return best;
    for (int c = by_column_.first[count], next = -1; c >= 0; c = next) {
      next = by_column_.next[c];
      look_at_column(c, best, merit);
      if (best.row >= 0 && (merit <= least || ++looked >= kLinesLookedAt)) return best;
    }
    for (int r = by_row_.first[count]; r >= 0; r = by_row_.next[r]) {
      look_at_row(r, best, merit);
      if (best.row >= 0 && (merit <= least || ++looked >= kLinesLookedAt)) return best;
    }
  }
  return best;
}

// Takes a column without a pivot out of the active submatrix; replace_rest gives it a unit column.
void Markowitz::drop_column(int c) {
  for (const Entry& entry : columns_[c]) {
    std::erase(rows_[entry.index], c);
    by_row_.move(entry.index, static_cast<int>(rows_[entry.index].size()));
  }
  columns_[c].clear();
  by_column_.erase(c);
  by_column_.insert(c, 0);
}

// columns_[c] -= factor * multipliers, with fill.
void Markowitz::update_column(int c, double factor) {
  auto& column = columns_[c];
  for (Entry& entry : column) {
    if (multiplier_[entry.index] == 0.0) continue;
    entry.value -= factor * multiplier_[entry.index];
    hit_[entry.index] = 1;
  }
  work_ += static_cast<std::int64_t>(column.size() + multiplier_rows_.size());
  for (const std::int32_t i : multiplier_rows_) {
    if (hit_[i]) {
      hit_[i] = 0;
      continue;
    }
    column.push_back({i, -factor * multiplier_[i]});
    rows_[i].push_back(c);
    by_row_.move(i, by_row_.count[i] + 1);
  }
  // Exact cancellation leaves the pattern, so that counts stay true.
  std::erase_if(column, [&](const Entry& entry) {
    if (std::abs(entry.value) > kDrop) return false;
    std::erase(rows_[entry.index], c);
    by_row_.move(entry.index, by_row_.count[entry.index] - 1);
    return true;
  });
  by_column_.move(c, static_cast<int>(column.size()));
}

void Markowitz::pivot(const Choice& choice, Factors& out) {
  const int r = choice.row, c = choice.column;
  out.pivots.push_back({choice.row, choice.column, choice.value});
  Factors::Line lower{static_cast<std::int64_t>(out.lower_entries.size()), 0};
  multiplier_rows_.clear();
  for (const Entry& entry : columns_[c]) {
    if (entry.index == r) continue;
    std::erase(rows_[entry.index], c);
    by_row_.move(entry.index, by_row_.count[entry.index] - 1);
    multiplier_[entry.index] = entry.value / choice.value;
    multiplier_rows_.push_back(entry.index);
    out.lower_entries.push_back({entry.index, multiplier_[entry.index]});
  }
  lower.end = static_cast<std::int64_t>(out.lower_entries.size());
  out.lower.push_back(lower);

  Factors::Line upper{static_cast<std::int64_t>(out.upper_entries.size()), 0};
  for (const std::int32_t j : rows_[r]) {
    if (j == c) continue;
    auto& column = columns_[j];
    const auto at = std::find_if(column.begin(), column.end(), [&](const Entry& entry) { return entry.index == r; });
    const double factor = at->value;
    out.upper_entries.push_back({j, factor});
    *at = column.back();
    column.pop_back();
    work_ += static_cast<std::int64_t>(column.size());
    if (multiplier_rows_.empty()) {
      by_column_.move(j, static_cast<int>(column.size()));
    } else {
      update_column(j, factor);
    }
  }
  upper.end = static_cast<std::int64_t>(out.upper_entries.size());
  out.upper.push_back(upper);
  for (const std::int32_t i : multiplier_rows_) multiplier_[i] = 0.0;
  by_row_.erase(r), by_column_.erase(c);
  row_done_[r] = 1, column_done_[c] = 1;
}

// A row that was never a pivot is untouched by L, so its unit column stays one, and U gains a diagonal entry alone.
void Markowitz::replace_rest(Factors& out) {
  int row = 0;
  const Factors::Line none{0, 0};
  for (std::int32_t c = 0; c < size_; ++c) {
    if (column_done_[c]) continue;
    while (row_done_[row]) ++row;
    row_done_[row] = 1;
    out.pivots.push_back({row, c, -1.0});
    out.lower.push_back(none), out.upper.push_back(none);
    out.replaced.push_back({row, c, -1.0});
  }
  if (out.replaced.empty()) return;
  // Entries of U in a replaced column are of the old one.
  for (auto& line : out.upper) {
    auto kept = line.begin;
    for (auto k = line.begin; k < line.end; ++k) {
      const Entry entry = out.upper_entries[static_cast<std::size_t>(k)];
      if (column_done_[entry.index]) out.upper_entries[static_cast<std::size_t>(kept++)] = entry;
    }
    line.end = kept;
  }
}

std::int64_t Markowitz::eliminate(std::span<const std::span<const Entry>> columns, Factors& out) {
  work_ = static_cast<std::int64_t>(columns.size());
  out.pivots.clear(), out.lower.clear(), out.upper.clear();
  out.lower_entries.clear(), out.upper_entries.clear(), out.replaced.clear();
  load(columns);
  for (Choice choice = choose(); choice.row >= 0; choice = choose()) pivot(choice, out);
  replace_rest(out);
  return work_;
}

}  // namespace hetsp::lp
