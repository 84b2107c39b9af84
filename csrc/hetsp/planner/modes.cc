#include "hetsp/planner/modes.h"

#include <algorithm>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"

namespace hetsp::planner {

namespace {

bool undercuts(const Rates& a, const Rates& b) {
  return a.per_pair <= b.per_pair && a.per_token <= b.per_token && a.per_sequence <= b.per_sequence;
}

// Nodes that `degree` ranks need at least.
int least_nodes(int degree, int ranks_per_node) { return ranks_per_node == 0 ? 1 : ceil_div(degree, ranks_per_node); }

}  // namespace

std::optional<Rates> rates_of(const CostModel& cost, const Strategy& strategy, int degree, int ranks_per_node, int nodes) {
  if (strategy.head_degree > cost.max_head_degree()) return std::nullopt;
  // A group on more nodes than it needs pays as if nodes were that much smaller.
  if (ranks_per_node > 0 && nodes > least_nodes(degree, ranks_per_node)) ranks_per_node = ceil_div(degree, nodes);
  const GroupCost group = cost.group_cost(strategy, degree, ranks_per_node);
  return Rates{group.per_pair, group.per_token, group.per_sequence, group.per_pair,
               group.per_token - group.communication_per_token};
}

Modes::Modes(const CostModel& cost, const Cluster& cluster, const PlanOptions& options, double hidden)
    : ranks_(cluster.ranks),
      ranks_per_node_(cluster.ranks_per_node),
      tokens_per_rank_(cluster.tokens_per_rank),
      placed_(cost.network.has_value()) {
  require(options.degrees == "any" || options.degrees == "pow2", "plan: degrees \"", options.degrees,
          "\" is unknown; allowed: any, pow2");
  require(0 <= options.max_degree && options.max_degree <= cluster.ranks, "plan: max_degree is ", options.max_degree,
          " ranks, must be in 1..", cluster.ranks, ", or 0 for the default");
  const int largest = options.max_degree > 0 ? options.max_degree : std::min(cluster.ranks, kMaxDegree);
  for (int degree = 1; degree <= largest; degree = options.degrees == "pow2" ? 2 * degree : degree + 1) {
    const auto before = modes_.size();
    for (const auto& name : options.executable) {
      const auto kind = kind_from(name);
      require(kind.has_value(), "plan: executable \"", name, "\" is unknown; allowed: whole, ring, ulysses, gather");
      if ((*kind == Kind::whole) != (degree == 1)) continue;
      auto rates = rates_of(cost, strategy_of(*kind, degree), degree, ranks_per_node_, least_nodes(degree, ranks_per_node_));
      if (!rates) continue;
      if (*kind == Kind::ring) {
        rates->per_token -= hidden * (rates->per_token - rates->compute_per_token);
        rates->per_sequence -= hidden * rates->per_sequence;
      }
      modes_.push_back({*kind, degree, *rates});
    }
    if (modes_.size() > before) degrees_.push_back(degree);
  }
  require(!degrees_.empty() && degrees_.front() == 1, "plan: executable must contain \"whole\"");
}

const Modes::Mode* Modes::find(Kind kind, int degree) const {
  if (degree == 1) kind = Kind::whole;
  auto mode = std::lower_bound(modes_.begin(), modes_.end(), degree, [](const Mode& m, int d) { return m.degree < d; });
  for (; mode != modes_.end() && mode->degree == degree; ++mode)
    if (mode->kind == kind) return &*mode;
  return nullptr;
}

const Modes::Mode* Modes::first_of(std::span<const Kind> kinds, int degree) const {
  for (const Kind kind : kinds)
    if (const Mode* mode = find(kind, degree)) return mode;
  return nullptr;
}

int Modes::least_degree(std::int64_t tokens) const {
  const auto degree =
      std::lower_bound(degrees_.begin(), degrees_.end(), tokens, [&](int d, std::int64_t t) { return room(d) < t; });
  return degree == degrees_.end() ? 0 : *degree;
}

packing::Instance Modes::instance(std::span<const Sequence> sequences, std::vector<Mode>& used) const {
  packing::Instance instance{.ranks = ranks_, .ranks_per_node = ranks_per_node_, .modes = {}, .items = {}};
  if (!placed_) instance.ranks_per_node = 0;
  const double fixed = sequences.empty() ? 0.0 : sequences.front().fixed_cost;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    require(sequences[s].fixed_cost == fixed, "plan: sequence ", s, " has a fixed cost of ", sequences[s].fixed_cost,
            " seconds and sequence 0 one of ", fixed, "; plans of disjoint groups take one fixed cost for all");
    instance.items.push_back({sequences[s].tokens, static_cast<double>(sequences[s].visible_pairs)});
  }
  used.clear();
  for (const Mode& mode : modes_) {
    const bool undercut = std::any_of(modes_.begin(), modes_.end(), [&](const Mode& other) {
      if (other.degree != mode.degree || &other == &mode || !undercuts(other.rates, mode.rates)) return false;
      return !undercuts(mode.rates, other.rates) || &other < &mode;  // of equals the first stays
    });
    if (undercut) continue;
    used.push_back(mode);
    instance.modes.push_back(
        {mode.degree, room(mode.degree), mode.rates.per_pair, mode.rates.per_token, mode.rates.per_sequence + fixed});
  }
  return instance;
}

}  // namespace hetsp::planner
