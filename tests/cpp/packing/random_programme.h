// Random level programmes, biased to corners: one level, hosts that begin late or nowhere, rows that need nothing or too much.
#pragma once

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "hetsp/packing/level_programme.h"

namespace hetsp::packing {

struct RandomProgramme {
  LevelProgramme programme;
  std::vector<LevelProgramme::Row> rows;

  explicit RandomProgramme(unsigned seed, int most_levels, int fewest, int most) {
    std::mt19937 random(seed);
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const int levels = 1 + below(most_levels), kinds = 1 + below(3);
    double cost = 0.25 * below(4);
    for (int g = 0; g < levels; ++g) programme.cost.push_back(cost += 0.25 * (1 + below(4)));
    for (int kind = 0; kind < kinds; ++kind) programme.lowest.push_back(below(levels + 1));
    programme.fewest = fewest, programme.most = most;
    const auto rising = [&](int step) {
      std::vector<double> values;
      double value = below(3);
      for (int g = 0; g < levels; ++g) values.push_back(value += below(step));
      return values;
    };
    for (int r = 1 + below(4); r > 0; --r) {
      LevelProgramme::Row& row = rows.emplace_back();
      row.plain = rising(4);
      for (int kind = 0; kind < kinds; ++kind) row.host.push_back(rising(3));
      row.need = below(5) == 0 ? 0.0 : below(1 + levels * (fewest + 1));
    }
  }

  // The least cost of all choices, infinity where there is none: obvious and slow.
  [[nodiscard]] double optimum() const {
    double best = std::numeric_limits<double>::infinity();
    for (int kind = 0; kind < static_cast<int>(programme.lowest.size()); ++kind)
      for (int g = programme.lowest[kind]; g < programme.levels(); ++g) {
        std::vector<double> earned;
        for (const auto& row : rows) earned.push_back(row.host[kind][g]);
        extend(1, programme.levels() - 1, programme.cost[g], earned, best);
      }
    return best;
  }

 private:
  void extend(int count, int top, double cost, const std::vector<double>& earned, double& best) const {
    bool enough = count >= programme.fewest;
    for (std::size_t r = 0; r < rows.size(); ++r) enough = enough && earned[r] >= rows[r].need;
    if (enough) best = std::min(best, cost);
    if (count == programme.most) return;
    for (int g = 0; g <= top; ++g) {
      std::vector<double> more = earned;
      for (std::size_t r = 0; r < rows.size(); ++r) more[r] += rows[r].plain[g];
      extend(count + 1, g, cost + programme.cost[g], more, best);
    }
  }
};

}  // namespace hetsp::packing
