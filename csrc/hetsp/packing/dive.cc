#include "hetsp/packing/dive.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hetsp::packing {

namespace {

// Groups under way, and the items that are in none yet.
class Draft {
 public:
  Draft(const Instance& instance, const ItemTypes& types)
      : instance_(instance), types_(types), need(types.count), budget(instance.ranks) {}

  // One group with the column's content, as far as it is still needed. False where its ranks do not fit any more.
  bool fix(const ConfigurationLp::Column& column) {
    const Mode& mode = instance_.modes[column.mode];
    if (mode.ranks > budget) return false;
    ranks_.push_back(mode.ranks);
    if (!places(instance_, ranks_)) {
      ranks_.pop_back();
      return false;
    }
    Bin bin{column.mode, {}};
    std::int64_t tokens = 0;
    for (const auto& [type, count] : column.fill)
      for (int times = std::min(count, need[type]); times > 0; --times) {
        const auto item = types_.members[type][need[type] - 1];
        if (tokens + instance_.items[item].tokens > mode.room) break;
        tokens += instance_.items[item].tokens;
        bin.items.push_back(item);
        --need[type];
      }
    if (bin.items.empty()) {
      ranks_.pop_back();
      return false;
    }
    budget -= mode.ranks;
    bins_.push_back(std::move(bin));
    return true;
  }

  // The rest, longest first, each into the group, old or new, in which it ends earliest.
  std::optional<Packing> repair() {
    std::vector<double> end;
    std::vector<std::int64_t> room;
    for (const Bin& bin : bins_) {
      end.push_back(0.0), room.push_back(instance_.modes[bin.mode].room);
      for (const auto i : bin.items)
        end.back() += instance_.modes[bin.mode].seconds(instance_.items[i]), room.back() -= instance_.items[i].tokens;
    }
    for (int type = 0; type < types_.size(); ++type)
      for (; need[type] > 0; --need[type]) {
        const auto index = types_.members[type][need[type] - 1];
        const Item& item = instance_.items[index];
        double earliest = std::numeric_limits<double>::infinity();
        std::size_t chosen = 0;
        std::int32_t opened = -1;
        for (std::size_t b = 0; b < bins_.size(); ++b) {
          const double then = end[b] + instance_.modes[bins_[b].mode].seconds(item);
          if (item.tokens <= room[b] && then < earliest) earliest = then, chosen = b;
        }
        for (std::size_t k = 0; k < instance_.modes.size(); ++k) {
          const Mode& mode = instance_.modes[k];
          if (mode.ranks > budget || item.tokens > mode.room || mode.seconds(item) >= earliest) continue;
          ranks_.push_back(mode.ranks);
          if (places(instance_, ranks_)) earliest = mode.seconds(item), opened = static_cast<std::int32_t>(k);
          ranks_.pop_back();
        }
        if (earliest == std::numeric_limits<double>::infinity()) return std::nullopt;
        if (opened >= 0) {
          const Mode& mode = instance_.modes[opened];
          chosen = bins_.size();
          bins_.push_back({opened, {}}), end.push_back(0.0), room.push_back(mode.room), ranks_.push_back(mode.ranks);
          budget -= mode.ranks;
        }
        bins_[chosen].items.push_back(index);
        end[chosen] = earliest, room[chosen] -= item.tokens;
      }
    return Packing{bins_, makespan(instance_, bins_)};
  }

  [[nodiscard]] bool complete() const {
    return std::all_of(need.begin(), need.end(), [](std::int32_t n) { return n == 0; });
  }

 private:
  const Instance& instance_;
  const ItemTypes& types_;
  std::vector<Bin> bins_;
  std::vector<std::int32_t> ranks_;  // of bins_

 public:
  std::vector<std::int32_t> need;  // [types]
  std::int32_t budget;             // ranks
};

}  // namespace

std::optional<Packing> dive(const Instance& instance, const ItemTypes& types, ConfigurationLp& lp, double T, Effort& effort) {
  constexpr std::int64_t kPricing = 2'000;  // visits of an item: columns near the best are good enough here
  Draft draft(instance, types);
  while (!draft.complete()) {
    const auto verdict = lp.solve(T, draft.need, draft.budget, effort, kPricing);
    if (verdict == ConfigurationLp::Verdict::refuted || effort.spent()) break;
    auto solution = lp.solution();
    std::stable_sort(solution.begin(), solution.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
    bool whole = false;
    for (const auto& [column, x] : solution)
      for (int times = static_cast<int>(std::floor(x + 1e-6)); times > 0; --times) whole |= draft.fix(column);
    if (whole) continue;
    const bool any = std::any_of(solution.begin(), solution.end(), [&](const auto& each) { return draft.fix(each.first); });
    if (!any) break;
  }
  return draft.repair();
}

}  // namespace hetsp::packing
