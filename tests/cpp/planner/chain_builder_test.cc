#include "hetsp/planner/chain_builder.h"

#include <algorithm>
#include <random>

#include "hetsp/planner/named_drafts.h"
#include "hetsp/planner/plan_check.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

PlanOptions options_of(std::uint64_t seed) {
  PlanOptions options;
  options.degrees = seed % 2 == 0 ? "any" : "pow2";
  options.executable = {"whole", "ulysses", "ring"};
  options.exclusive = true;
  options.synchronisation = Synchronisation::step;
  return options;
}

}  // namespace

TEST(what_is_built_is_a_sound_plan_that_takes_as_long_as_it_says) {
  int filled = 0, shared = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    RandomStep step(seed, 40, 12);
    for (auto& sequence : step.sequences) sequence.fixed_cost = 0.0;
    if (seed % 4 == 0) step.cluster.ranks_per_node = 1 + static_cast<int>(seed / 4 % 4);
    check::context() = step.name;
    if (seed % 8 == 4) {  // a model that knows its nodes: groups of few ranks stay inside one
      step.cost = cost_model_on_network({.layers = 1, .hidden = 8, .intermediate = 8, .heads = 4, .kv_heads = 2, .head_dim = 2},
                                        {50.0, 500.0}, {.intra_node = {1e3, 0.01}, .inter_node = {1e2, 0.02}},
                                        step.cluster.ranks_per_node);
    }
    const PlanOptions options = options_of(seed);
    const Modes modes(step.cost, step.cluster, options);
    const Task task{step.sequences, step.cluster, step.cost, options, modes};
    ChainBuilder builder(task);
    std::mt19937_64 random(seed);
    for (int trial = 0; trial < 3; ++trial) {  // one builder again and again, on decisions of every kind
      std::vector<ChainBuilder::Decision> decisions;
      bool fits = true;
      for (const auto& sequence : step.sequences) {
        std::vector<const Modes::Mode*> possible;
        for (const auto& mode : modes.modes())
          if (modes.room(mode.degree) >= sequence.tokens) possible.push_back(&mode);
        fits = fits && !possible.empty();
        if (!fits) break;
        decisions.push_back({.mode = trial == 0 ? possible.front() : possible[random() % possible.size()],
                             .priority = trial < 2 ? 0.0 : static_cast<double>(random() % 8)});
      }
      if (!fits) break;
      const double seconds = builder.build(decisions);
      const Plan plan = price(task, builder.draft());
      planner::check(plan, step.cluster);
      CHECK_NEAR(plan.makespan, seconds, 1e-9 * (1.0 + seconds));
      const double busy = *std::max_element(plan.rank_seconds.begin(), plan.rank_seconds.end());
      filled += busy < plan.makespan * (1 - 1e-9);
      for (const auto& micro_batch : plan.micro_batches)
        for (const auto& group : micro_batch.groups) shared += group.ranks.size() > 1 && group.sequences.size() > 1;
    }
  }
  CHECK(filled > 20);  // chains with waits, and groups of several sequences, were among them
  CHECK(shared > 100);
}

TEST(whole_sequences_fill_the_wait_before_a_shared_one) {
  // Of three ranks two share the first long sequence for 6 s, then one of them and the third the second: the third waits 6 s,
  // which 4 + 2 s fill, as the others fill the end of the rank that is left over.
  const CostModel cost{.seconds_per_token = 1.0};
  const Cluster cluster{3, 0, 12};
  const std::vector<Sequence> sequences{{12, 0}, {12, 0}, {4, 0}, {4, 0}, {2, 0}, {2, 0}};
  const PlanOptions options = options_of(0);
  const Modes modes(cost, cluster, options);
  const Task task{sequences, cluster, cost, options, modes};
  ChainBuilder builder(task);
  const ChainBuilder::Decision one{.mode = modes.find(Kind::whole, 1)}, two{.mode = modes.find(Kind::ring, 2)};
  CHECK_NEAR(builder.build({two, two, one, one, one, one}), 12.0, 1e-12);
  CHECK_NEAR(price(task, builder.draft()).makespan, 12.0, 1e-12);
}

TEST_MAIN()
