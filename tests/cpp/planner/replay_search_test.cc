#include "hetsp/planner/replay_search.h"

#include <algorithm>
#include <string>
#include <vector>

#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/presets.h"
#include "hetsp/planner/strategies/bytescale.h"
#include "hetsp/planner/strategies/dhp.h"
#include "hetsp/planner/workload.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// A machine that the cost model does not know: all groups but the first rank alone are half as fast, rings half of that.
Replay slow(const Plan& plan) {
  std::vector<double> busy(plan.ranks), free_at(plan.ranks);
  double sum = 0.0;
  for (const auto& micro_batch : plan.micro_batches) {
    double slowest = 0.0;
    for (const auto& group : micro_batch.groups) {
      double seconds = 0.0, begin = 0.0;
      for (const auto s : group.sequences) seconds += 1.0 + static_cast<double>(plan.sequences[s.value()].visible_pairs);
      seconds /= static_cast<double>(group.ranks.size());
      if (group.strategy.ring_degree > 1 && !group.strategy.gather_kv) seconds *= 2.0;
      if (group.ranks.size() > 1 || group.ranks.front().value() > 0) seconds *= 2.0;  // all but the first rank alone
      for (const auto rank : group.ranks) begin = std::max(begin, free_at[rank.value()]);
      for (const auto rank : group.ranks) busy[rank.value()] += seconds, free_at[rank.value()] = begin + seconds;
      slowest = std::max(slowest, seconds);
    }
    sum += slowest;
  }
  return {is_chained(plan) ? *std::max_element(free_at.begin(), free_at.end()) : sum, busy};
}

PlanOptions options_of(std::uint64_t seed) {
  PlanOptions options{.executable = {"whole", "ring", "ulysses", "gather"},
                      .synchronisation = static_cast<Synchronisation>(seed % 3),
                      .seed = seed,
                      .exclusive = true};
  options.replay = slow;
  return options;
}

}  // namespace

TEST(random_plans_get_faster_under_the_replay_and_stay_sound) {
  int faster = 0, several = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    const RandomStep step(seed, 30, 12);
    check::context() = step.name;
    const PlanOptions options = options_of(seed);
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    if (modes.least_degree(longest(step.sequences)) == 0) continue;
    const Plan start = price(task, draft_dhp(task));
    packing::Effort effort(300 * work_of_replay(task));
    const Plan plan = price(task, search_by_replay(task, start, effort));
    planner::check(plan, step.cluster);
    CHECK(plan.micro_batches.size() <= start.micro_batches.size());
    CHECK(slow(plan).seconds <= slow(start).seconds * (1 + 1e-9));
    faster += slow(plan).seconds < 0.99 * slow(start).seconds;
    several += start.micro_batches.size() > 1;
  }
  CHECK(faster > 50);
  CHECK(several > 20);
}

TEST(loads_that_can_be_even_become_even) {
  const auto sequences = make_workload(std::vector<std::int64_t>(12, 10));
  const Cluster cluster{4, 0, 120};
  const CostModel cost{.seconds_per_token = 1.0};
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    PlanOptions options = options_of(seed);
    options.replay = [](const Plan& plan) { return Replay{plan.makespan, plan.rank_seconds}; };
    const Modes modes(cost, cluster, options);
    const Task task{sequences, cluster, cost, options, modes};
    Draft crooked{{{{.sequences = {0, 1, 2, 3, 4, 5, 6, 7, 8}, .ranks = {0}},
                    {.sequences = {9}, .ranks = {1}},
                    {.sequences = {10}, .ranks = {2}},
                    {.sequences = {11}, .ranks = {3}}}}};
    packing::Effort effort(2000 * work_of_replay(task));
    const Plan plan = price(task, search_by_replay(task, price(task, crooked), effort));
    CHECK_NEAR(plan.makespan, 30.0, 1e-9);
  }
}

TEST(without_effort_a_plan_stays_what_it_is) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const RandomStep step(seed, 30, 12);
    check::context() = step.name;
    const PlanOptions options = options_of(seed);
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    if (modes.least_degree(longest(step.sequences)) == 0) continue;
    const Plan start = price(task, draft_dhp(task));
    packing::Effort effort(1);
    const Plan plan = price(task, search_by_replay(task, start, effort));
    if (!is_chained(start)) CHECK_EQ(digest(plan), digest(start));  // chains may close up
    CHECK_NEAR(plan.makespan, start.makespan, 1e-9 * start.makespan);
    CHECK(plan.rank_seconds == start.rank_seconds);
  }
}

TEST(groups_that_offload_keep_their_sequences) {
  const Preset& setting = preset("bytescale-7b");
  std::vector<std::int64_t> lengths{30'000, 20'000, 14'000};
  for (int i = 0; i < 90; ++i) lengths.push_back(4000 + 40 * i);
  const auto sequences = setting.workload(lengths);
  const Cluster cluster = setting.cluster(8, 384 << 10);
  const PlanOptions options = options_of(2);
  const Modes modes(setting.cost, cluster, options);
  const Task task{sequences, cluster, setting.cost, options, modes};
  const Plan start = price(task, draft_bytescale_dp(task));
  packing::Effort effort(400 * work_of_replay(task));
  const Plan plan = price(task, search_by_replay(task, start, effort));
  planner::check(plan, cluster);
  CHECK(slow(plan).seconds < slow(start).seconds);
  const auto offloaded = [](const Plan& made) {
    std::vector<std::pair<int, double>> found;
    for (const auto& micro_batch : made.micro_batches)
      for (const auto& group : micro_batch.groups)
        for (const auto s : group.sequences)
          if (group.offload_ratio > 0.0) found.emplace_back(s.value(), group.offload_ratio);
    std::sort(found.begin(), found.end());
    return found;
  };
  CHECK(!offloaded(start).empty());
  CHECK(offloaded(plan) == offloaded(start));
}

TEST_MAIN()
