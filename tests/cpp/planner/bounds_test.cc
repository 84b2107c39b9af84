#include "hetsp/planner/bounds.h"

#include "hetsp/base/error.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {
std::vector<Sequence> workload(std::vector<std::int64_t> lengths) { return make_workload(lengths); }
const CostModel kLinear{.seconds_per_token = 1.0};
}  // namespace

TEST(mean_of_work_without_communication) {
  CHECK_NEAR(lower_bound(workload({30, 20, 10}), {3, 0, 100}, kLinear, 3), 20.0, 1e-6);
}

TEST(longest_sequence_where_communication_stops_splitting) {
  // On d ranks 100 / d + 30 (d - 1): 100, 80, 93.3.
  const CostModel cost{.seconds_per_token = 1.0, .hop_seconds = 30.0};
  CHECK_NEAR(lower_bound(workload({100}), {3, 0, 100}, cost, 3), 80.0, 1e-6);
}

TEST(memory_forces_degrees_and_micro_batches) {
  // 100 tokens need 4 ranks of 25, each hop costs 5: 4 ranks x (25 + 15) seconds over 4 ranks.
  const CostModel cost{.seconds_per_token = 1.0, .hop_seconds = 5.0, .micro_batch_seconds = 7.0};
  CHECK_NEAR(lower_bound(workload({100}), {4, 0, 25}, cost, 4), 47.0, 1e-6);
  CHECK_NEAR(lower_bound(workload({100, 1}), {4, 0, 25}, CostModel{.micro_batch_seconds = 7.0}, 4), 14.0, 1e-6);
}

TEST(whole_sequences_share_a_rank) {
  CHECK_NEAR(lower_bound(workload({10, 9, 8}), {2, 0, 100}, kLinear, 1), 17.0, 1e-6);
  CHECK_NEAR(lower_bound(workload({10, 9, 8}), {2, 0, 100}, kLinear, 2), 13.5, 1e-6);
}

TEST(below_every_random_plan) {
  // The makespan of any places at all is a value that the bound must not exceed.
  std::mt19937_64 random(3);
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const RandomStep step(seed, 8, 5);
    check::context() = step.name;
    double bound;
    try {
      bound = lower_bound(step.sequences, step.cluster, step.cost, step.cluster.ranks);
    } catch (const PlanInfeasible&) {
      continue;
    }
    for (int round = 0; round < 20; ++round) {
      std::vector<double> load(step.cluster.ranks, step.cost.micro_batch_seconds);
      bool fits = true;
      std::vector<double> held(step.cluster.ranks);
      for (const auto& sequence : step.sequences) {
        std::vector<int> ranks;
        for (int rank = 0; rank < step.cluster.ranks; ++rank)
          if (random() % 2 || (rank + 1 == step.cluster.ranks && ranks.empty())) ranks.push_back(rank);
        const int degree = static_cast<int>(ranks.size());
        for (const int rank : ranks) {
          load[rank] += step.cost.seconds(sequence, degree);
          held[rank] += static_cast<double>(sequence.tokens) / degree;
          fits = fits && held[rank] <= static_cast<double>(step.cluster.tokens_per_rank);
        }
      }
      if (fits) CHECK(bound <= *std::max_element(load.begin(), load.end()) * (1 + 1e-9));
    }
  }
}

TEST(a_sequence_beyond_all_memory_is_refused) {
  CHECK_THROWS(PlanInfeasible, "fits on no number of ranks", lower_bound(workload({100}), {3, 0, 25}, kLinear, 3));
}

TEST_MAIN()
