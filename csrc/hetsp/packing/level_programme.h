// How long micro-batches must be to earn what all items are worth: an integer programme over makespan levels.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/packing/effort.h"

namespace hetsp::packing {

// One micro-batch is the host: it holds an item that is in no other, in one of several kinds of group. With prices of the other
// items (a row), a plain micro-batch of level g earns at most `plain`[g], a host of kind h at most `host`[h][g], neither
// falling with g, and all of them together at least `need`, for every row. Of y_g plain micro-batches and one host
//
//   min sum_g cost_g y_g + cost_{g of the host}     subject to    fewest <= 1 + sum_g y_g <= most     and the rows.
struct LevelProgramme {
  struct Row {
    double need = 0.0;
    std::vector<double> plain;              // [levels]
    std::vector<std::vector<double>> host;  // [kinds][levels]
    [[nodiscard]] double earned(int kind, int level) const { return kind < 0 ? plain[level] : host[kind][level]; }
  };
  struct Part {
    int kind = -1;  // of the host; -1: plain
    int level = 0;
    double times = 1.0;  // a fraction where the programme is relaxed
  };
  struct Choice {
    double cost = 0.0;        // seconds
    std::vector<Part> parts;  // empty: nothing below the cost asked for
  };

  std::vector<double> cost;  // [levels] rising
  std::vector<int> lowest;   // [kinds] the host's first level; levels() where a kind is impossible
  int fewest = 1, most = 1;  // micro-batches

  [[nodiscard]] int levels() const { return static_cast<int>(cost.size()); }
};

// The cheapest choice of at most `most` micro-batches below `upper`, else an empty one of that cost: all choices are enumerated
// but for the last micro-batch, which is found by bisection. For up to three. Where the effort is spent, nothing is proven.
[[nodiscard]] LevelProgramme::Choice enumerate(const LevelProgramme& programme, const std::vector<LevelProgramme::Row>& rows,
                                               int most, double upper, Effort& effort);

}  // namespace hetsp::packing
