#include "hetsp/planner/bounds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "hetsp/base/ceil_div.h"
#include "hetsp/base/error.h"
#include "hetsp/planner/workload.h"

namespace hetsp::planner {

namespace {

// The facts of the header for a fixed T, without micro_batch_seconds.
class Refuter {
 public:
  Refuter(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost, int max_degree)
      : seconds_(cost, sequences, max_degree), cluster_(cluster), sequences_(sequences), envelope_(max_degree + 2) {
    envelope_[max_degree + 1] = std::numeric_limits<double>::infinity();
    for (int degree = max_degree; degree >= 1; --degree)
      envelope_[degree] = std::min(envelope_[degree + 1], seconds_.link(degree));
  }

  [[nodiscard]] bool refutes(double T) const {
    double area = 0.0;
    for (int s = 0; s < seconds_.sequences(); ++s) {
      const int degree = least_degree_by(s, T);
      if (degree == 0) return true;
      area += degree * time(s, degree);
      if (area > cluster_.ranks * T) return true;
    }
    return false;
  }

 private:
  [[nodiscard]] double time(int s, int degree) const {
    const Sequence& sequence = sequences_[s];
    return (seconds_.work(s) + envelope_[degree] * static_cast<double>(sequence.tokens)) / degree +
           seconds_.hop() * (degree - 1) + sequence.fixed_cost;
  }

  // D_T(s), or 0. Starts where the computation alone would fit.
  [[nodiscard]] int least_degree_by(int s, double T) const {
    const Sequence& sequence = sequences_[s];
    const double left = T - sequence.fixed_cost;
    if (left < 0.0) return 0;
    const double by_work = seconds_.work(s) > 0.0 ? std::floor(seconds_.work(s) / left * (1.0 - 1e-12)) : 1.0;
    if (!(by_work <= seconds_.max_degree())) return 0;
    const std::int64_t by_memory = ceil_div(sequence.tokens, cluster_.tokens_per_rank);
    std::int64_t degree = std::max({std::int64_t{1}, by_memory, static_cast<std::int64_t>(by_work)});
    for (; degree <= seconds_.max_degree(); ++degree)
      if (time(s, static_cast<int>(degree)) <= T) return static_cast<int>(degree);
    return 0;
  }

  SequenceSeconds seconds_;
  const Cluster& cluster_;
  std::span<const Sequence> sequences_;
  std::vector<double> envelope_;  // [max_degree + 2] min over d' >= d of e(d')
};

// The fact `whole`.
double whole_bound(std::span<const Sequence> sequences, const CostModel& cost, int ranks) {
  std::vector<double> seconds;
  for (const auto& sequence : sequences) seconds.push_back(cost.seconds(sequence, 1));
  std::sort(seconds.begin(), seconds.end(), std::greater<>());
  double bound = 0.0;
  for (std::size_t last = ranks; last < seconds.size(); last += ranks) {
    double sum = 0.0;
    for (std::size_t i = 0; i <= last / ranks; ++i) sum += seconds[last - i];
    bound = std::max(bound, sum);
  }
  return bound;
}

}  // namespace

double lower_bound(std::span<const Sequence> sequences, const Cluster& cluster, const CostModel& cost, int max_degree) {
  const Refuter facts(sequences, cluster, cost, max_degree);
  double low = 0.0, high = 0.0;
  for (const auto& sequence : sequences) high += cost.seconds(sequence, 1) + cost.seconds(sequence, max_degree);
  high = std::max(high, 1e-300);
  for (int doubling = 0; facts.refutes(high); ++doubling, high *= 2.0) {
    if (doubling == 60) throw PlanInfeasible("bound: some sequence fits on no number of ranks");
  }
  if (facts.refutes(0.0)) {
    while (high - low > 1e-9 * high) {
      const double middle = 0.5 * (low + high);
      (facts.refutes(middle) ? low : high) = middle;
    }
  }
  if (max_degree == 1) low = std::max(low, whole_bound(sequences, cost, cluster.ranks) * (1.0 - 1e-9));
  const double micro_batches =
      std::ceil(static_cast<double>(total_tokens(sequences)) /
                (static_cast<double>(cluster.ranks) * static_cast<double>(cluster.tokens_per_rank)) * (1.0 - 1e-15));
  return low + std::max(1.0, micro_batches) * cost.micro_batch_seconds;
}

}  // namespace hetsp::planner
