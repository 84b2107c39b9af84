#include "hetsp/planner/planner.h"

#include <limits>

#include "hetsp/base/error.h"
#include "hetsp/planner/assignment.h"
#include "hetsp/planner/bounds.h"
#include "hetsp/planner/cut.h"
#include "hetsp/planner/plan_check.h"
#include "planner/random_step.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// The best makespan over every choice of ranks and micro-batch for every sequence: slow and obvious.
class Exhaustive {
 public:
  Exhaustive(const RandomStep& step, Synchronisation synchronisation, int micro_batches, int max_degree)
      : step_(step),
        synchronisation_(synchronisation),
        micro_batches_(micro_batches),
        max_degree_(max_degree),
        places_(step.sequences.size()) {
    visit(0);
  }
  [[nodiscard]] double best() const { return best_; }

 private:
  void visit(std::size_t sequence) {
    if (sequence == places_.size()) return leaf();
    for (int mask = 1; mask < 1 << step_.cluster.ranks; ++mask) {
      places_[sequence].ranks.clear();
      for (int rank = 0; rank < step_.cluster.ranks; ++rank)
        if (mask >> rank & 1) places_[sequence].ranks.push_back(rank);
      if (static_cast<int>(places_[sequence].ranks.size()) > max_degree_) continue;
      for (places_[sequence].micro_batch = 0; places_[sequence].micro_batch < micro_batches_; ++places_[sequence].micro_batch)
        visit(sequence + 1);
    }
  }

  void leaf() {
    Plan plan = make_plan(step_.sequences, places_, step_.cluster.ranks, synchronisation_);
    for (std::size_t m = 0; m < plan.micro_batches.size(); ++m)
      for (const auto tokens : rank_tokens(plan, static_cast<int>(m)))
        if (tokens > step_.cluster.tokens_per_rank) return;
    predict(plan, step_.cost);
    best_ = std::min(best_, plan.makespan);
  }

  const RandomStep& step_;
  Synchronisation synchronisation_;
  int micro_batches_, max_degree_;
  Assignment places_;
  double best_ = std::numeric_limits<double>::infinity();
};

Cluster roomy(int ranks) { return {ranks, 0, 1 << 20}; }
const CostModel kCost{.seconds_per_pair = 1e-3, .seconds_per_token = 1.0, .links = {{2, 0.01}, {3, 0.02}}, .hop_seconds = 0.1};

std::vector<Sequence> workload(std::vector<std::int64_t> lengths) { return make_workload(lengths); }

}  // namespace

TEST(between_the_bound_and_the_optimum_of_tiny_steps) {
  double worst = 1.0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    const RandomStep step(seed, 3, 3);
    check::context() = step.name;
    const auto synchronisation = static_cast<Synchronisation>(seed % 3);
    const bool rings = seed % 4 != 0;
    PlanOptions options{.synchronisation = synchronisation};
    if (!rings) options.executable = {"whole"};
    const int max_degree = rings ? step.cluster.ranks : 1;
    const double optimum = Exhaustive(step, synchronisation, static_cast<int>(step.sequences.size()), max_degree).best();
    if (optimum == std::numeric_limits<double>::infinity()) {
      CHECK_THROWS(PlanInfeasible, "the largest group allowed", make_plan(step.sequences, step.cluster, step.cost, options));
      continue;
    }
    const Plan plan = make_plan(step.sequences, step.cluster, step.cost, options);
    CHECK(plan.lower_bound <= optimum * (1 + 1e-9));
    CHECK(plan.makespan >= optimum * (1 - 1e-9));
    worst = std::max(worst, optimum > 0 ? plan.makespan / optimum : 1.0);
    for (const auto& micro_batch : plan.micro_batches)
      for (const auto& group : micro_batch.groups) CHECK(static_cast<int>(group.ranks.size()) <= max_degree);
  }
  std::printf("     worst auto / optimum %.3f\n", worst);
  CHECK(worst < 1.05);
}

TEST(random_steps_of_every_strategy_pass_their_check) {
  for (std::uint64_t seed = 1000; seed < 1300; ++seed) {
    const RandomStep step(seed, 40, 12);
    for (const std::string strategy : {"auto", "static", "data-parallel"}) {
      check::context() = step.name + ", " + strategy;
      const PlanOptions options{
          .strategy = strategy, .synchronisation = static_cast<Synchronisation>(seed % 3), .work_limit = 20000};
      bool fits = true;
      const int degree = strategy == "data-parallel" ? 1 : step.cluster.ranks;
      for (const auto& s : step.sequences) fits = fits && most_tokens_held(s.tokens, degree) <= step.cluster.tokens_per_rank;
      if (strategy == "auto" && !fits) {
        fits = true;  // a smaller group may hold what the largest does not, by a token of rounding
        for (const auto& s : step.sequences) fits = fits && least_degree(s.tokens, step.cluster.tokens_per_rank, degree) > 0;
      }
      if (!fits && strategy == "static") continue;
      if (!fits) {
        CHECK_THROWS(PlanInfeasible, "room for", make_plan(step.sequences, step.cluster, step.cost, options));
        continue;
      }
      const Plan plan = make_plan(step.sequences, step.cluster, step.cost, options);
      planner::check(plan, step.cluster);
      CHECK(plan.lower_bound <= plan.makespan * (1 + 1e-9));
    }
  }
}

TEST(auto_is_never_worse_than_the_other_strategies) {
  for (std::uint64_t seed = 2000; seed < 2150; ++seed) {
    const RandomStep step(seed, 30, 8);
    check::context() = step.name;
    const double best = make_plan(step.sequences, step.cluster, step.cost).makespan;
    for (const char* strategy : {"static", "data-parallel"}) {
      try {
        const double other = make_plan(step.sequences, step.cluster, step.cost, {.strategy = strategy}).makespan;
        if (best > other * 1.0101) check::fail(__FILE__, __LINE__, concat("auto ", best, " s, ", strategy, " ", other, " s"));
      } catch (const PlanInfeasible&) {
        // auto alone finds room
      }
    }
  }
}

TEST(equal_arguments_give_equal_plans) {
  const RandomStep step(7, 60, 9);
  const auto make = [&](std::int64_t work, std::uint64_t seed) {
    return make_plan(step.sequences, step.cluster, step.cost, {.work_limit = work, .seed = seed});
  };
  CHECK_EQ(digest(make(0, 1)), digest(make(0, 1)));
  CHECK_EQ(digest(make(500, 1)), digest(make(500, 1)));
  CHECK(make(1, 0).makespan >= make(0, 0).makespan * 0.99);
}

TEST(whole_where_that_balances_and_shared_where_not) {
  const Plan even = make_plan(workload({100, 100, 100, 100}), roomy(4), kCost);
  CHECK_EQ(even.micro_batches[0].groups.size(), 4u);
  for (const auto& group : even.micro_batches[0].groups) CHECK_EQ(group.ranks.size(), 1u);
  const Plan mixed = make_plan(workload({4000, 100, 100, 100, 50}), roomy(4), kCost);
  std::size_t largest = 0, whole = 0;
  for (const auto& group : mixed.micro_batches[0].groups) {
    largest = std::max(largest, group.ranks.size());
    if (group.ranks.size() == 1) whole += group.sequences.size();
  }
  CHECK(largest >= 3 && whole >= 3);
  CHECK(mixed.gap() < 0.03);
}

TEST(sequences_on_the_same_ranks_share_a_group) {
  const Plan plan = make_plan(workload({10, 20, 30, 0}), roomy(3), kCost, {.strategy = "static"});
  CHECK_EQ(plan.micro_batches.size(), 1u);
  CHECK_EQ(plan.micro_batches[0].groups.size(), 1u);
  CHECK_EQ(plan.micro_batches[0].groups[0].sequences.size(), 4u);
  CHECK(plan.micro_batches[0].groups[0].cut == Cut::zigzag);
}

TEST(as_few_micro_batches_as_memory_allows) {
  const std::vector<std::int64_t> lengths(12, 100);
  const auto count = [&](std::int64_t capacity, const char* strategy) {
    return make_plan(workload(lengths), {3, 0, capacity}, kCost, {.strategy = strategy}).micro_batches.size();
  };
  CHECK_EQ(count(400, "auto"), 1u);
  CHECK_EQ(count(399, "auto"), 2u);
  CHECK_EQ(count(100, "auto"), 4u);
  CHECK_EQ(count(100, "data-parallel"), 4u);
  CHECK_EQ(count(34, "static"), 12u);
}

TEST(what_does_not_fit_is_named) {
  CHECK_THROWS(
      PlanInfeasible,
      "sequence 1 has 301 tokens; on 3 ranks, the largest group allowed, each holds 101 tokens, and a rank has room for 100",
      make_plan(workload({5, 301}), {3, 0, 100}, kCost));
  CHECK_THROWS(PlanInfeasible, "sequence 1 has 300 tokens; on 1 rank",
               make_plan(workload({5, 300}), {3, 0, 100}, kCost, {.executable = {"whole"}}));
  CHECK_THROWS(PlanInfeasible, "on 1 rank", make_plan(workload({300}), {3, 0, 100}, kCost, {.strategy = "data-parallel"}));
}

TEST(unknown_names_list_the_allowed) {
  const auto options = [](const PlanOptions& given) { return make_plan(workload({5}), roomy(2), kCost, given); };
  CHECK_THROWS(InvalidArgument, "strategy \"fast\" is unknown; allowed: auto, static, data-parallel",
               options({.strategy = "fast"}));
  CHECK_THROWS(InvalidArgument, "executable \"ulysses\" is a kind of group that cannot be run yet; allowed: whole, ring",
               options({.executable = {"whole", "ulysses"}}));
  CHECK_THROWS(InvalidArgument, "executable must contain \"whole\"", options({.executable = {"ring"}}));
  CHECK_THROWS(InvalidArgument, "needs \"ring\"", options({.strategy = "static", .executable = {"whole"}}));
  CHECK_THROWS(InvalidArgument, "synchronisation \"never\" is unknown; allowed: layer, micro_batch, step",
               synchronisation_from("never"));
  CHECK_THROWS(InvalidArgument, "work_limit is -1", options({.work_limit = -1}));
  CHECK_THROWS(InvalidArgument, "ranks is 0", make_plan(workload({5}), {0, 0, 1}, kCost));
  CHECK_THROWS(InvalidArgument, "tokens_per_rank is 0", make_plan(workload({5}), {1, 0, 0}, kCost));
}

TEST_MAIN()
