#include "hetsp/packing/level_programme.h"

#include <algorithm>

namespace hetsp::packing {

namespace {

constexpr double kTolerance = 1e-9;  // relative, of a row's need

using Row = LevelProgramme::Row;

// All choices of a given number of micro-batches: the host, then plain ones of falling level.
class Enumeration {
 public:
  Enumeration(const LevelProgramme& programme, const std::vector<Row>& rows, LevelProgramme::Choice& best, Effort& effort)
      : programme_(programme), cost_(programme.cost), rows_(rows), best_(best), effort_(effort), missing_(rows.size()) {}

  void run(int micro_batches) {
    for (std::size_t kind = 0; kind < programme_.lowest.size(); ++kind)
      for (int g = programme_.lowest[kind]; g < programme_.levels() && !effort_.spent(); ++g) {
        if (cost_[g] + (micro_batches - 1) * cost_[0] >= best_.cost) break;
        bool enough = true;
        for (std::size_t r = 0; r < rows_.size(); ++r) {
          missing_[r] = rows_[r].need * (1.0 - kTolerance) - rows_[r].host[kind][g];
          enough = enough && missing_[r] <= 0.0;
        }
        effort_.spend(static_cast<std::int64_t>(rows_.size()));
        kind_ = static_cast<int>(kind), level_ = g;
        extend(micro_batches - 1, programme_.levels() - 1, cost_[g]);
        if (enough) break;  // a longer host only costs more
      }
  }

 private:
  void extend(int left, int top, double cost) {
    if (left == 0) {
      if (std::all_of(missing_.begin(), missing_.end(), [](double m) { return m <= 0.0; })) accept(cost);
      return;
    }
    if (left == 1) {
      std::ptrdiff_t g = 0;
      for (std::size_t r = 0; r < rows_.size() && g <= top; ++r) {
        const auto& earned = rows_[r].plain;
        if (earned[static_cast<std::size_t>(g)] < missing_[r])
          g = std::lower_bound(earned.begin() + g, earned.end(), missing_[r]) - earned.begin();
      }
      effort_.spend(static_cast<std::int64_t>(rows_.size()));
      if (g > top) return;
      plain_.push_back(static_cast<int>(g));
      accept(cost + cost_[static_cast<std::size_t>(g)]);
      plain_.pop_back();
      return;
    }
    for (int g = 0; g <= top && !effort_.spent(); ++g) {
      if (cost + cost_[g] + (left - 1) * cost_[0] >= best_.cost) break;
      for (std::size_t r = 0; r < rows_.size(); ++r) missing_[r] -= rows_[r].plain[g];
      plain_.push_back(g);
      extend(left - 1, g, cost + cost_[g]);
      plain_.pop_back();
      for (std::size_t r = 0; r < rows_.size(); ++r) missing_[r] += rows_[r].plain[g];
    }
  }

  void accept(double cost) {
    if (cost >= best_.cost) return;
    best_.cost = cost;
    best_.parts = {{kind_, level_, 1.0}};
    for (const int g : plain_) best_.parts.push_back({-1, g, 1.0});
  }

  const LevelProgramme& programme_;
  const std::vector<double>& cost_;
  const std::vector<Row>& rows_;
  LevelProgramme::Choice& best_;
  Effort& effort_;
  std::vector<double> missing_;  // [rows] of what is not chosen yet
  std::vector<int> plain_;       // levels chosen, falling
  int kind_ = -1, level_ = 0;
};

}  // namespace

LevelProgramme::Choice enumerate(const LevelProgramme& programme, const std::vector<Row>& rows, int most, double upper,
                                 Effort& effort) {
  LevelProgramme::Choice best;
  best.cost = upper;
  Enumeration enumeration(programme, rows, best, effort);
  for (int k = programme.fewest; k <= std::min(most, programme.most); ++k) enumeration.run(k);
  return best;
}

}  // namespace hetsp::packing
