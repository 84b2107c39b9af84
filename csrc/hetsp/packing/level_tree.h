// Branch and bound over a LevelProgramme with many micro-batches, whose rows come while it runs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "hetsp/lp/simplex.h"
#include "hetsp/packing/effort.h"
#include "hetsp/packing/level_programme.h"

namespace hetsp::packing {

// Nodes restrict how many micro-batches lie at or above a level, of which kind the host is, and whether it lies at or above a
// level; the least LP value of the open nodes bounds the programme at any time (Land and Doig, Econometrica 28, 1960). Levels
// are split by their sums and not one by one, since neighbouring levels can stand in for each other. A row holds for every
// node.
class LevelTree {
 public:
  using Row = LevelProgramme::Row;
  using Choice = LevelProgramme::Choice;

  // fewest: micro-batches, at least. The programme is copied.
  LevelTree(LevelProgramme programme, int fewest);

  void add(const Row& row);

  // The LP's solution of the most promising node, parts of it perhaps fractions; empty where none is below `upper` or the
  // effort is spent.
  [[nodiscard]] Choice next(double upper, Effort& effort);

  // Splits the node of the last next(), which no row cuts off any more. False where its solution is whole.
  bool split(const Choice& choice);

  // What every choice of the programme costs at least; infinity where there is none below the `upper` of the last next().
  [[nodiscard]] double bound() const;

 private:
  enum class Sum { plain, host, kind };
  struct Limit {
    std::int32_t row;
    double low, high;
  };
  struct Node {
    double bound = 0.0;
    std::vector<Limit> limits;
    bool operator<(const Node& other) const { return bound > other.bound; }
  };
  void push(Node node);
  std::int32_t row_of(Sum sum, int which);
  void branch(Sum sum, int which, double value);

  LevelProgramme programme_;
  std::vector<std::pair<int, int>> column_;  // (kind or -1, level)
  lp::Simplex lp_;
  std::map<std::pair<Sum, int>, std::int32_t> rows_;  // of sums
  std::vector<Node> open_;                            // a heap, the least bound first
  std::optional<Node> node_;                          // that next() solved last
  std::int64_t spent_ = 0;
};

}  // namespace hetsp::packing
