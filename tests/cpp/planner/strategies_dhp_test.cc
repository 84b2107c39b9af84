#include "hetsp/planner/strategies/dhp.h"

#include <algorithm>
#include <limits>

#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// F(i, j) = min over d of max(F(i - 1, j - d), T_i(d)) for the groups of one micro-batch, as the paper writes it.
double programme(const Task& task, const std::vector<DraftGroup>& groups) {
  const int ranks = task.cluster.ranks;
  std::vector<double> least(ranks + 1, 0.0);
  for (const DraftGroup& group : groups) {
    std::int64_t longest = 0, tokens = 0;
    for (const int s : group.sequences)
      longest = std::max(longest, task.sequences[s].tokens), tokens += task.sequences[s].tokens;
    const int first = task.modes.least_degree(longest);  // the ranks that the group was opened with
    CHECK(tokens <= task.modes.room(first));
    std::vector<double> next(ranks + 1, std::numeric_limits<double>::infinity());
    for (const int degree : task.modes.degrees()) {
      if (degree < first) continue;
      const DraftGroup wide{.kind = degree == 1 ? Kind::whole : Kind::ring, .degree = degree, .sequences = group.sequences};
      const double seconds = group_seconds(task, wide);
      for (int j = degree; j <= ranks; ++j) next[j] = std::min(next[j], std::max(least[j - degree], seconds));
    }
    least = next;
  }
  return *std::min_element(least.begin(), least.end());
}

}  // namespace

TEST(ranks_are_allotted_as_the_programme_does) {
  int micro_batches = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomStep step(seed, 25, 12);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    check::context() = step.name;
    PlanOptions options;
    options.exclusive = true, options.degrees = seed % 3 == 0 ? "pow2" : "any";
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    if (modes.least_degree(longest(step.sequences)) == 0) continue;
    for (const auto& groups : draft_dhp(task).micro_batches) {
      const double optimum = programme(task, groups);
      CHECK(std::abs(slowest_seconds(task, groups) - optimum) <= 1e-6 * optimum);
      ++micro_batches;
    }
  }
  CHECK(micro_batches > 200);
}

TEST_MAIN()
