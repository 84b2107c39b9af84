#include "hetsp/packing/level_tree.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

constexpr double kTolerance = 1e-9;  // relative, of a row's need
constexpr std::int64_t kSolve = 2'000'000;  // entries after which an LP looks whether it may go on
constexpr double kWhole = 1e-5;      // what a number may lie from a whole one

// Rows: the number of plain micro-batches, that of hosts. Columns: plain ones by level, then hosts by kind and level.
lp::Model frame(const LevelProgramme& programme, int fewest, std::vector<std::pair<int, int>>& column) {
  lp::Model model;
  model.add_row(std::max(fewest, programme.fewest) - 1, programme.most - 1);
  model.add_row(1.0, 1.0);
  const auto add = [&](int kind, int level) {
    const lp::Entry one{kind < 0 ? 0 : 1, 1.0};
    model.add_column(programme.cost[level], 0.0, kind < 0 ? lp::kInfinity : 1.0, {&one, 1});
    column.emplace_back(kind, level);
  };
  for (int g = 0; g < programme.levels(); ++g) add(-1, g);
  for (int kind = 0; kind < static_cast<int>(programme.lowest.size()); ++kind)
    for (int g = programme.lowest[kind]; g < programme.levels(); ++g) add(kind, g);
  return model;
}

double from_whole(double value) { return std::abs(value - std::round(value)); }

}  // namespace

LevelTree::LevelTree(LevelProgramme programme, int fewest)
    : programme_(std::move(programme)), lp_(frame(programme_, fewest, column_), {.work_limit = kSolve}), open_(1) {}

void LevelTree::add(const Row& row) {
  if (row.need <= 0.0) return;
  std::vector<lp::Entry> entries;
  for (std::size_t j = 0; j < column_.size(); ++j)
    if (const double earned = row.earned(column_[j].first, column_[j].second); earned > 0.0)
      entries.push_back({static_cast<std::int32_t>(j), earned / row.need});
  lp_.add_row(1.0 - kTolerance, lp::kInfinity, entries);
}

void LevelTree::push(Node node) {
  open_.push_back(std::move(node));
  std::push_heap(open_.begin(), open_.end());
}

double LevelTree::bound() const {
  double least = std::numeric_limits<double>::infinity();
  if (!open_.empty()) least = open_.front().bound;
  return node_ ? std::min(least, node_->bound) : least;
}

LevelTree::Choice LevelTree::next(double upper, Effort& effort) {
  if (node_) push(*std::exchange(node_, std::nullopt));
  while (!open_.empty() && !effort.spent()) {
    std::pop_heap(open_.begin(), open_.end());
    Node node = std::move(open_.back());
    open_.pop_back();
    for (const auto& [sum, row] : rows_) lp_.set_row_bounds(row, 0.0, lp::kInfinity);
    for (const Limit& limit : node.limits) lp_.set_row_bounds(limit.row, limit.low, limit.high);
    lp::Status status = lp::Status::work_limit;
    while (status == lp::Status::work_limit && !effort.spent()) {
      status = lp_.solve();
      effort.spend(lp_.work() - spent_);
      spent_ = lp_.work();
    }
    if (status == lp::Status::infeasible) continue;
    if (status == lp::Status::optimal) node.bound = std::max(node.bound, lp_.objective());
    if (node.bound >= upper) continue;
    if (status != lp::Status::optimal || node.bound > bound()) {
      push(std::move(node));
      if (status != lp::Status::optimal) return {};
      continue;
    }
    Choice choice;
    choice.cost = node.bound;
    for (std::size_t j = 0; j < column_.size(); ++j)
      if (const double x = lp_.primal()[j]; x > 1e-7) choice.parts.push_back({column_[j].first, column_[j].second, x});
    node_ = std::move(node);
    return choice;
  }
  return {};
}

// The row that adds up plain micro-batches, or hosts, at level `which` or above, or hosts of kind `which`.
std::int32_t LevelTree::row_of(Sum sum, int which) {
  const auto [at, fresh] = rows_.try_emplace({sum, which}, 0);
  if (fresh) {
    std::vector<lp::Entry> entries;
    for (std::size_t j = 0; j < column_.size(); ++j) {
      const auto [kind, level] = column_[j];
      if (sum == Sum::kind ? kind == which : (kind < 0) == (sum == Sum::plain) && level >= which)
        entries.push_back({static_cast<std::int32_t>(j), 1.0});
    }
    at->second = lp_.add_row(0.0, lp::kInfinity, entries);
  }
  return at->second;
}

void LevelTree::branch(Sum sum, int which, double value) {
  const std::int32_t row = row_of(sum, which);
  const Node parent = *std::exchange(node_, std::nullopt);
  for (const auto& [low, high] : {std::pair{0.0, std::floor(value)}, std::pair{std::floor(value) + 1.0, lp::kInfinity}}) {
    Node node = parent;
    const auto same = std::find_if(node.limits.begin(), node.limits.end(), [&](const Limit& l) { return l.row == row; });
    Limit& limit = same == node.limits.end() ? node.limits.emplace_back(Limit{row, 0.0, lp::kInfinity}) : *same;
    limit.low = std::max(limit.low, low), limit.high = std::min(limit.high, high);
    if (limit.low <= limit.high) push(std::move(node));
  }
}

// First the host's kind, then its level, then how many micro-batches are long.
bool LevelTree::split(const Choice& choice) {
  std::map<int, double> kinds, hosts, plain;  // by kind, by level, by level
  for (const auto& part : choice.parts) {
    if (part.kind >= 0) kinds[part.kind] += part.times, hosts[part.level] += part.times;
    if (part.kind < 0) plain[part.level] += part.times;
  }
  const auto largest = std::max_element(kinds.begin(), kinds.end(), [](auto& a, auto& b) { return a.second < b.second; });
  if (largest != kinds.end() && largest->second < 1.0 - kWhole) {
    branch(Sum::kind, largest->first, largest->second);
    return true;
  }
  // The sum from some level on that is furthest from a whole number.
  for (const auto* parts : {&hosts, &plain}) {
    double sum = 0.0, furthest = kWhole, value = 0.0;
    int level = -1;
    for (auto part = parts->rbegin(); part != parts->rend(); ++part) {
      sum += part->second;
      if (from_whole(sum) > furthest) furthest = from_whole(sum), value = sum, level = part->first;
    }
    if (level < 0) continue;
    branch(parts == &hosts ? Sum::host : Sum::plain, level, value);
    return true;
  }
  return false;
}

}  // namespace hetsp::packing
