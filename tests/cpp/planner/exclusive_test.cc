#include "hetsp/planner/exclusive.h"

#include <bit>
#include <cmath>
#include <limits>
#include <map>

#include "hetsp/base/error.h"
#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/presets.h"
#include "hetsp/planner/workload.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

PlanOptions exclusive(std::string strategy, std::uint64_t seed = 0) {
  PlanOptions options;
  options.strategy = std::move(strategy);
  options.executable = {"whole", "ulysses", "ring", "gather"};
  options.degrees = seed % 2 == 0 ? "any" : "pow2";
  options.synchronisation = static_cast<Synchronisation>(seed % 3);
  options.work_limit = 20'000;
  options.exclusive = true;
  return options;
}

RandomStep step_of(std::uint64_t seed, int sequences, int ranks) {
  RandomStep step(seed, sequences, ranks);
  for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
  if (seed % 4 == 0) step.cluster.ranks_per_node = 1 + static_cast<int>(seed / 4 % 4);
  return step;
}

std::vector<std::string> all_strategies() {
  std::vector<std::string> names = draft_names();
  names.push_back("auto");
  return names;
}

}  // namespace

TEST(random_steps_of_every_strategy_are_sound) {
  std::map<std::string, int> made;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const RandomStep step = step_of(seed, 30, 12);
    for (const auto& strategy : all_strategies()) {
      check::context() = step.name + ", " + strategy;
      try {
        const Plan plan = make_plan(step.sequences, step.cluster, step.cost, exclusive(strategy, seed));
        planner::check(plan, step.cluster);
        CHECK(plan.exclusive);
        double makespans = 0.0, bounds = 0.0;
        for (const auto& micro_batch : plan.micro_batches) makespans += micro_batch.makespan, bounds += micro_batch.lower_bound;
        CHECK(std::abs(bounds - plan.lower_bound) <= 1e-9 * plan.lower_bound);
        if (plan.synchronisation != Synchronisation::step) CHECK(std::abs(makespans - plan.makespan) <= 1e-9 * makespans);
        CHECK(plan.makespan <= makespans * (1 + 1e-9));
        ++made[strategy];
      } catch (const PlanInfeasible&) {
        int largest = strategy == "data-parallel" ? 1 : Modes(step.cost, step.cluster, exclusive(strategy, seed)).max_degree();
        if (strategy == "flexsp") largest = static_cast<int>(std::bit_floor(static_cast<unsigned>(largest)));
        // Its inter-node rings are over whole nodes of one size.
        const int node = step.cluster.ranks_per_node;
        if (strategy == "zeppelin" && node > 0 && step.cluster.ranks % node != 0) continue;
        bool fits = true;
        for (const auto& s : step.sequences) fits = fits && s.tokens <= largest * step.cluster.tokens_per_rank;
        CHECK(!fits);
      }
    }
  }
  for (const auto& strategy : all_strategies()) CHECK(made[strategy] > 50);
}

TEST(auto_is_never_worse_than_a_named_strategy) {
  for (std::uint64_t seed = 500; seed < 650; ++seed) {
    const RandomStep step = step_of(seed, 30, 12);
    const auto makespan = [&](const std::string& strategy) {
      check::context() = step.name + ", " + strategy;
      try {
        return make_plan(step.sequences, step.cluster, step.cost, exclusive(strategy, seed)).makespan;
      } catch (const PlanInfeasible&) {
        return std::numeric_limits<double>::infinity();
      }
    };
    const double ours = makespan("auto");
    for (const auto& strategy : draft_names()) CHECK(ours <= makespan(strategy) * (1 + 1e-9));
  }
}

TEST(any_degree_is_never_worse_than_powers_of_two) {
  int better = 0;
  for (std::uint64_t seed = 700; seed < 900; ++seed) {
    const RandomStep step = step_of(seed, 30, 12);
    check::context() = step.name;
    PlanOptions options = exclusive("auto", seed);
    options.degrees = "any";
    const Plan any = make_plan(step.sequences, step.cluster, step.cost, options);
    options.degrees = "pow2";
    try {
      const Plan powers = make_plan(step.sequences, step.cluster, step.cost, options);
      CHECK(any.makespan <= powers.makespan * (1 + 1e-9));
      better += any.makespan < 0.999 * powers.makespan;
    } catch (const PlanInfeasible&) {  // ranks that are no power of two hold what the largest one cannot
    }
  }
  CHECK(better > 10);
}

TEST(what_does_not_fit_names_the_sequence_and_the_capacity) {
  const auto sequences = make_workload(std::vector<std::int64_t>{5, 301});
  CHECK_THROWS(PlanInfeasible,
               "sequence 1 has 301 tokens; the largest group allowed, 3 ranks with room for 100 tokens each, holds 300",
               make_plan(sequences, {3, 0, 100}, CostModel{.seconds_per_token = 1.0}, exclusive("auto")));
  PlanOptions one = exclusive("te-cp");
  one.micro_batches = 1;
  CHECK_THROWS(
      PlanInfeasible, "needs 2 micro-batches",
      make_plan(make_workload(std::vector<std::int64_t>{200, 200}), {3, 0, 100}, CostModel{.seconds_per_token = 1.0}, one));
}

TEST(llama_groups_stay_inside_nodes) {
  const Preset& llama = preset("llama-7b");
  const auto sequences =
      llama.workload(std::vector<std::int64_t>{200000, 60000, 30000, 30000, 9000, 8000, 7000, 6000, 500, 400});
  const Cluster cluster = llama.cluster(32, 262144);
  PlanOptions options = exclusive("auto");
  options.synchronisation = Synchronisation::layer;
  const Plan plan = make_plan(sequences, cluster, llama.cost, options);
  for (const auto& micro_batch : plan.micro_batches)
    for (const auto& group : micro_batch.groups)
      if (group.ranks.size() <= 8) CHECK_EQ(group.ranks.front().value() / 8, group.ranks.back().value() / 8);
}

TEST_MAIN()
