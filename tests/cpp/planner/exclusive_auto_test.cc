#include "hetsp/planner/exclusive_auto.h"

#include <algorithm>

#include "hetsp/base/error.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/planner.h"
#include "hetsp/planner/workload.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

PlanOptions options_of(std::uint64_t seed) {
  PlanOptions options;
  options.executable = {"whole", "ring", "ulysses", "gather"};
  options.synchronisation = static_cast<Synchronisation>(seed % 3);
  options.work_limit = 20'000;
  options.exclusive = true;
  return options;
}

}  // namespace

TEST(a_replay_decides_among_all_candidates_and_the_bound_stays) {
  int different = 0;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    RandomStep step(seed, 30, 12);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    check::context() = step.name;
    PlanOptions options = options_of(seed);
    const Plan predicted = make_plan(step.sequences, step.cluster, step.cost, options);
    double least = 1e300;
    int asked = 0;
    // Something that the cost model does not know: ranks beside the first work half as fast.
    const auto slow = [](const Plan& plan) {
      double most = 0.0;
      for (std::size_t r = 0; r < plan.rank_seconds.size(); ++r)
        most = std::max(most, plan.rank_seconds[r] * (r > 0 ? 2.0 : 1.0));
      return most;
    };
    options.replay = [&](const Plan& plan) {
      ++asked;
      planner::check(plan, step.cluster);
      if (plan.sequences.size() == step.sequences.size()) least = std::min(least, slow(plan));
      return Replay{slow(plan), plan.rank_seconds};
    };
    const Plan plan = make_plan(step.sequences, step.cluster, step.cost, options);
    CHECK(asked >= 5);
    CHECK_NEAR(slow(plan), least, 1e-9 * (1.0 + least));
    CHECK(slow(plan) <= slow(predicted) * (1 + 1e-9));
    CHECK(plan.lower_bound <= plan.makespan * (1 + 1e-9));
    CHECK_NEAR(plan.lower_bound, predicted.lower_bound, 0.2 * predicted.lower_bound);  // the same search, ended by its work
    different += digest(plan) != digest(predicted);
  }
  CHECK(different > 10);
}

TEST(a_replay_says_what_every_rank_works) {
  PlanOptions options = options_of(0);
  options.replay = [](const Plan&) { return Replay{1.0, {1.0}}; };
  CHECK_THROWS(
      InvalidArgument, "the replay says what 1 ranks work, the cluster has 2",
      make_plan(make_workload(std::vector<std::int64_t>{5, 6}), {2, 0, 10}, CostModel{.seconds_per_token = 1.0}, options));
}

TEST(shared_plans_have_no_replay) {
  PlanOptions options;
  options.replay = [](const Plan&) { return Replay{}; };
  CHECK_THROWS(
      InvalidArgument, "replay is for disjoint groups",
      make_plan(make_workload(std::vector<std::int64_t>{5}), {2, 0, 10}, CostModel{.seconds_per_token = 1.0}, options));
}

TEST_MAIN()
