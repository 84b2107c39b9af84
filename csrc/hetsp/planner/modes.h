// What groups of every allowed kind and degree cost and hold: the cost model as a table, and the packing instance from it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "hetsp/packing/instance.h"
#include "hetsp/planner/cluster.h"
#include "hetsp/planner/cost_model.h"
#include "hetsp/planner/kind.h"
#include "hetsp/planner/planner.h"

namespace hetsp::planner {

// What a sequence of p visible pairs and s tokens takes each rank of a group: per_pair p + per_token s + per_sequence +
// its fixed_cost, in seconds; the compute_ part is attention and linear modules, the rest communication and start-up.
struct Rates {
  double per_pair = 0.0, per_token = 0.0, per_sequence = 0.0;
  double compute_per_pair = 0.0, compute_per_token = 0.0;
};

// The rates of `degree` ranks on `nodes` nodes. None where the cost model's shape does not allow such a group (Ulysses on more
// ranks than heads).
[[nodiscard]] std::optional<Rates> rates_of(const CostModel& cost, const Strategy& strategy, int degree, int ranks_per_node,
                                            int nodes);

class Modes {
 public:
  struct Mode {
    Kind kind;
    int degree;
    Rates rates;
  };

  // Degrees 1, 2, 3, ... or 1, 2, 4, ... up to options.max_degree, each in every executable kind that the cost model allows;
  // a group takes the fewest nodes it can. Throws InvalidArgument for a degree list or kind that is unknown. `hidden`: share of
  // the hops of rings that costs nothing, as if computation hid it.
  Modes(const CostModel& cost, const Cluster& cluster, const PlanOptions& options, double hidden = 0.0);

  [[nodiscard]] const std::vector<int>& degrees() const { return degrees_; }  // ascending; each has a mode
  [[nodiscard]] int max_degree() const { return degrees_.back(); }
  [[nodiscard]] const std::vector<Mode>& modes() const {
    return modes_;
  }  // by rising degree, then as options.executable has them

  // The mode of that kind and degree, whole for one rank; none if not allowed.
  [[nodiscard]] const Mode* find(Kind kind, int degree) const;

  // The first of `kinds` that is allowed at that degree; none if none is.
  [[nodiscard]] const Mode* first_of(std::span<const Kind> kinds, int degree) const;

  [[nodiscard]] static double seconds(const Mode& mode, const Sequence& sequence) {
    return mode.rates.per_pair * static_cast<double>(sequence.visible_pairs) +
           mode.rates.per_token * static_cast<double>(sequence.tokens) + mode.rates.per_sequence + sequence.fixed_cost;
  }
  // Tokens that a group holds: the memory of its ranks together.
  [[nodiscard]] std::int64_t room(int degree) const { return degree * tokens_per_rank_; }
  // Least allowed degree that holds so many tokens; 0 if none.
  [[nodiscard]] int least_degree(std::int64_t tokens) const;

  // The modes and these sequences as bin packing. Modes that another of the same degree undercuts in every rate are left out;
  // `used` receives what each mode of the instance is. Throws InvalidArgument where fixed costs differ between sequences.
  [[nodiscard]] packing::Instance instance(std::span<const Sequence> sequences, std::vector<Mode>& used) const;

 private:
  std::int32_t ranks_, ranks_per_node_;
  std::int64_t tokens_per_rank_;
  bool placed_;  // the cost model knows nodes: a packing must fit them. A table's degrees are abstract
  std::vector<int> degrees_;
  std::vector<Mode> modes_;
};

}  // namespace hetsp::planner
