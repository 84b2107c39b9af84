#include "hetsp/simulator/simulate.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "hetsp/planner/planner.h"
#include "hetsp/planner/workload.h"
#include "simulator/step_cases.h"
#include "support/check.h"

using namespace step_cases;
using namespace hetsp::simulator;

namespace {

constexpr Options kPlanners{.overlap = false, .contention = false, .packed = false};  // what the planner assumes

void check_seconds(const Timeline& timeline) {
  for (std::size_t rank = 0; rank < timeline.busy.size(); ++rank) {
    const double sum = timeline.busy[rank] + timeline.communication[rank] + timeline.wait[rank];
    CHECK_NEAR(sum, timeline.makespan, 1e-9 * timeline.makespan);
  }
}

Strategy random_kind(std::mt19937_64& random, int degree) {
  switch (random() % 4) {
    case 0:
      return {.ring_degree = degree};
    case 1:
      return {.ring_degree = degree, .gather_kv = true};
    case 2:
      if (degree <= 8) return {.head_degree = degree};
      [[fallthrough]];
    default:
      return degree % 2 ? Strategy{.ring_degree = degree} : Strategy{.head_degree = 2, .ring_degree = degree / 2};
  }
}

}  // namespace

TEST(a_single_ring_takes_the_longer_of_step_and_hop) {
  for (const double flops : {1e4, 1e7, 1e10}) {  // computation hides all, some, nothing
    for (const int degree : {2, 3, 7}) {
      check::context() = "degree " + std::to_string(degree);
      const CostModel cost = cost_model_on_network(small_shape(), {flops, flops}, small_network(1e-4), 0);
      const Plan plan = plan_of(degree, {{1000, 500500, 0.0}}, {{{group_of(0, degree, {.ring_degree = degree}, {0})}}});
      const Machine machine{degree, 0, small_network(1e-4)};
      const Timeline timeline = simulate(plan, cost, machine);
      const double tokens = 1000.0 / degree, attention = cost.seconds_per_pair * 500500 / degree;
      double expected = cost.seconds_per_token * tokens;
      for (const auto& [share, bytes] : {std::pair{2.0 / 7, 2.0}, std::pair{5.0 / 7, 6.0}}) {
        const double step = share * attention / degree;
        const double hop = 2 * (tokens * 2 * 4 * 4 * bytes / 1e6 + 1e-4);  // 2 layers
        expected += step + (degree - 1) * std::max(step, hop);
      }
      CHECK_NEAR(timeline.makespan, expected, 1e-9 * expected);
      check_seconds(timeline);
    }
  }
}

TEST(an_all_to_all_divides_by_the_nics) {
  double last = 0.0;
  for (const int nics : {1, 2, 4}) {
    const Network network = small_network(0.0, nics);
    const CostModel cost = cost_model_on_network(small_shape(), {1e30, 1e30}, network, 4);
    const Plan plan = plan_of(8, {{1000, 500500, 0.0}}, {{{group_of(0, 8, {.head_degree = 8}, {0})}}});
    const double seconds = simulate(plan, cost, {8, 4, network}).makespan;
    // Both passes: 125 tokens x 2 bytes x 4 x (2 x 8 + 2 x 8) heads / 8 to each of 4 ranks outside, from 4 ranks, 2 layers.
    CHECK_NEAR(seconds, 2 * 2 * 125.0 * 2 * 4 * 32 / 8 * 16 / nics / 1e5, 1e-9);
    if (last > 0.0) CHECK_NEAR(seconds, last / 2, 1e-9);
    last = seconds;
  }
}

TEST(two_rings_over_one_nic_halve_each_other) {
  const Network network = small_network(0.0, 1);
  const CostModel cost = cost_model_on_network(small_shape(), {1e30, 1e30}, network, 2);
  Group first = group_of(0, 1, {.ring_degree = 2}, {0}), second = group_of(1, 1, {.ring_degree = 2}, {1});
  first.ranks.emplace_back(2), second.ranks.emplace_back(3);  // each over both nodes
  const Plan plan = plan_of(4, {{1000, 500500, 0.0}, {1000, 500500, 0.0}}, {{{first, second}}});
  const Machine machine{4, 2, network};
  const double together = simulate(plan, cost, machine).makespan;
  const double apart = simulate(plan, cost, machine, {.contention = false}).makespan;
  CHECK_NEAR(together, 2 * apart, 1e-9 * together);
}

TEST(routing_over_all_nics_divides_a_hop_by_them) {
  const Network network{.intra_node = {1e9, 0.0}, .inter_node = {1e5, 0.0}, .nics_per_node = 4};
  const CostModel cost = cost_model_on_network(small_shape(), {1e30, 1e30}, network, 4);
  const Plan plan = plan_of(8, {{1000, 500500, 0.0}}, {{{group_of(0, 8, {.ring_degree = 8}, {0})}}});
  const double own = simulate(plan, cost, {8, 4, network}).makespan;
  const double all = simulate(plan, cost, {8, 4, network}, {.routing = Routing::all_nics}).makespan;
  CHECK_NEAR(all, own / 4, 1e-9 * own);
}

TEST(without_overlap_and_contention_it_is_the_planners_prediction) {
  std::mt19937_64 random(17);
  for (int trial = 0; trial < 60; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    const int node = 4, ranks = 16;
    const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, small_network(1e-3), node, trial % 2);
    std::vector<Sequence> sequences;
    std::vector<MicroBatch> micro_batches(1 + random() % 3);
    double expected = 0.0;
    Plan plan = plan_of(ranks, {}, {}, Synchronisation::micro_batch);
    for (auto& micro_batch : micro_batches) {
      int first = 0;
      while (first < ranks) {
        // Groups begin on a node's first rank, or stay inside one.
        const int room = first % node ? node - first % node : ranks - first;
        const int count = 1 + static_cast<int>(random() % room);
        std::vector<int> members;
        for (int i = 0; i < 1 + static_cast<int>(random() % 3); ++i) {
          members.push_back(static_cast<int>(plan.sequences.size()));
          const auto tokens = static_cast<std::int64_t>(random() % 2000);
          plan.sequences.push_back({tokens, tokens * (tokens + 1) / 2, random() % 2 ? 0.0 : 0.125});
        }
        micro_batch.groups.push_back(group_of(first, count, count > 1 ? random_kind(random, count) : Strategy{}, members));
        first += count;
        if (first % node && first / node != (first - count) / node) first = (first / node + 1) * node;  // leave a begun node
      }
      double slowest = 0.0;
      for (const auto& group : micro_batch.groups) slowest = std::max(slowest, predicted(plan, group, cost, node));
      expected += slowest;
    }
    plan.micro_batches = micro_batches;
    const Timeline timeline = simulate(plan, cost, {ranks, node, small_network(1e-3)}, kPlanners);
    CHECK_NEAR(timeline.makespan, expected, 1e-9 * expected);
    check_seconds(timeline);
    check_seconds(simulate(plan, cost, {ranks, node, small_network(1e-3)}));
  }
}

TEST(made_plans_never_beat_their_busiest_rank_nor_without_overlap_their_prediction) {
  const CostModel cost{.seconds_per_pair = 1e-6,
                       .seconds_per_token = 1e-3,
                       .links = {{2, 1e-3}, {3, 2e-3}},
                       .hop_seconds = 0.01,
                       .micro_batch_seconds = 0.1};
  std::mt19937_64 random(23);
  for (int trial = 0; trial < 12; ++trial) {
    std::vector<std::int64_t> lengths;
    for (int i = 0; i < 20; ++i) lengths.push_back(static_cast<std::int64_t>(random() % 4000 * (i % 5 ? 1 : 4)));
    for (const char* strategy : {"auto", "static", "data-parallel"}) {
      check::context() = std::string(strategy) + " trial " + std::to_string(trial);
      const auto synchronisation = trial % 2 ? Synchronisation::step : Synchronisation::micro_batch;
      const Plan plan = make_plan(make_workload(lengths), {8, 0, 20000}, cost,
                                  {.strategy = strategy, .synchronisation = synchronisation, .work_limit = 2000});
      const Machine machine{8, 0, small_network()};
      const Timeline strict = simulate(plan, cost, machine, kPlanners);
      CHECK(strict.makespan >= plan.makespan * (1 - 1e-9));
      if (std::string(strategy) != "auto") CHECK_NEAR(strict.makespan, plan.makespan, 1e-9 * plan.makespan);
      const Timeline timeline = simulate(plan, cost, machine);
      check_seconds(timeline);
      CHECK(timeline.makespan >= *std::max_element(timeline.busy.begin(), timeline.busy.end()) * (1 - 1e-9));
      for (int rank = 0; rank < 8; ++rank) {
        const double fixed = cost.micro_batch_seconds * static_cast<double>(plan.micro_batches.size());
        CHECK_NEAR(timeline.busy[rank], plan.compute_seconds[rank] + fixed, 1e-9 * plan.makespan);
      }
    }
  }
}

// Disjoint groups in every synchronisation, chains of different counts and placeholders with a cost among them.
TEST(exclusive_plans_of_every_strategy_take_what_was_predicted) {
  std::mt19937_64 random(31);
  int waited = 0, placeholders = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const CostModel cost{.seconds_per_pair = 1e-6,
                         .seconds_per_token = 1e-3,
                         .links = {{2, 1e-3}, {3, 2e-3}},
                         .hop_seconds = trial % 4 ? 0.01 : 0.0,
                         .micro_batch_seconds = trial % 5 ? 0.1 : 0.0,
                         .placeholder_seconds = 4.0 * static_cast<double>(trial / 3 % 3)};
    std::vector<std::int64_t> lengths;
    for (int i = 0; i < 20; ++i) lengths.push_back(static_cast<std::int64_t>(random() % 4000 * (i % 5 ? 1 : 4)));
    const auto synchronisation = static_cast<Synchronisation>(trial % 3);
    for (const auto& strategy : strategy_names()) {
      check::context() = strategy + " trial " + std::to_string(trial);
      if (strategy == "data-parallel") continue;  // the longest fits on no rank alone
      const Plan plan = make_plan(make_workload(lengths), {8, 0, 4000}, cost,
                                  {.strategy = strategy,
                                   .executable = {"whole", "ring", "ulysses", "gather"},
                                   .synchronisation = synchronisation,
                                   .work_limit = 2000,
                                   .exclusive = true,
                                   .degrees = "pow2"});
      const Timeline strict = simulate(plan, cost, {8, 0, small_network()}, kPlanners);
      CHECK_NEAR(strict.makespan, plan.makespan, 1e-9 * plan.makespan);
      CHECK(simulate(plan, cost, {8, 0, small_network()}).makespan <= plan.makespan * (1 + 1e-9));
      waited +=
          is_chained(plan) && plan.makespan > *std::max_element(plan.rank_seconds.begin(), plan.rank_seconds.end()) + 1e-9;
      for (const auto& micro_batch : plan.micro_batches) placeholders += micro_batch.placeholder.seconds > 0.0;
    }
  }
  CHECK(waited > 3);
  CHECK(placeholders > 10);
}

TEST(auto_with_a_replay_is_never_slower_in_it_than_a_named_strategy) {
  std::mt19937_64 random(37);
  int gained = 0;
  for (int trial = 0; trial < 24; ++trial) {
    const int node = 4, ranks = 16;
    const Network network = small_network(trial % 4 ? 1e-3 : 0.0, trial % 3);
    const CostModel cost = trial % 6 == 5 ? CostModel{.seconds_per_pair = 1e-6,
                                                      .seconds_per_token = 1e-3,
                                                      .links = {{2, 2e-3}, {3, 4e-3}},
                                                      .hop_seconds = 0.02,
                                                      .micro_batch_seconds = 0.1}
                                          : cost_model_on_network(small_shape(), {1e7, 1e7}, network, node, trial % 2);
    std::vector<std::int64_t> lengths;
    for (int i = 0; i < 30; ++i) lengths.push_back(static_cast<std::int64_t>(random() % 3000 * (i % 6 ? 1 : 8)));
    const Machine machine = machine_of(cost, ranks, node);
    const auto replay = [&](const Plan& plan) {
      const Timeline timeline = simulate(plan, cost, machine);
      planner::Replay result{timeline.makespan, timeline.busy};
      for (int rank = 0; rank < ranks; ++rank) result.rank_seconds[rank] += timeline.communication[rank];
      return result;
    };
    PlanOptions options{.executable = {"whole", "ulysses", "ring", "gather"},
                        .synchronisation = static_cast<Synchronisation>(trial % 3),
                        .work_limit = 10'000,
                        .exclusive = true,
                        .degrees = trial % 2 ? "pow2" : "any"};
    const auto seconds = [&](const std::string& strategy) {
      options.strategy = strategy;
      return replay(make_plan(make_workload(lengths), {ranks, node, 6000}, cost, options)).seconds;
    };
    const double predicted = seconds("auto");
    options.replay = replay;
    const double ours = seconds("auto");
    gained += ours < predicted * (1 - 1e-9);
    for (const auto& strategy : strategy_names()) {
      check::context() = strategy + " trial " + std::to_string(trial);
      if (strategy == "data-parallel" || strategy == "auto") continue;  // the longest fits on no rank alone
      CHECK(ours <= seconds(strategy) * (1 + 1e-9));
    }
  }
  CHECK(gained > 5);  // the cost model alone does not find these
}

TEST(every_byte_is_received_where_it_was_sent_to) {
  std::mt19937_64 random(29);
  for (int trial = 0; trial < 20; ++trial) {
    check::context() = "trial " + std::to_string(trial);
    const Network network = small_network(1e-4, 1 + static_cast<int>(random() % 4));
    const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, network, 4);
    const int cut = 1 + static_cast<int>(random() % 15);
    const Plan plan = plan_of(
        16, {{3000, 4501500, 0.0}, {500, 125250, 0.0}},
        {{{group_of(0, cut, random_kind(random, cut), {0}), group_of(cut, 16 - cut, random_kind(random, 16 - cut), {1})}}});
    const Machine machine{16, 4, network};
    for (const auto routing : {Routing::own_nic, Routing::all_nics}) {
      const Timeline timeline = simulate(plan, cost, machine, {.routing = routing});
      double out = 0.0, in = 0.0;
      for (int resource = 0; resource < machine.resources(); ++resource)
        (resource % 2 ? in : out) += timeline.resource_bytes[resource];
      CHECK_NEAR(out, in, 1e-9 * out);
      for (int resource = 0; resource < machine.resources(); ++resource) {
        const double capacity = machine.capacities()[resource];
        CHECK(timeline.resource_bytes[resource] <= capacity * timeline.makespan * (1 + 1e-9));
      }
    }
  }
}

TEST(where_ranks_wait_for_each_other_the_slowest_counts_each_time) {
  const CostModel cost{.seconds_per_token = 1.0};
  const Plan together =
      plan_of(2, {{5, 0, 0.0}, {1, 0, 0.0}, {1, 0, 0.0}, {5, 0, 0.0}},
              {{{group_of(0, 1, {}, {0}), group_of(1, 1, {}, {1})}}, {{group_of(0, 1, {}, {2}), group_of(1, 1, {}, {3})}}});
  Plan apart = together;
  apart.synchronisation = Synchronisation::micro_batch;
  const Machine machine{2, 0, small_network()};
  CHECK_NEAR(simulate(together, cost, machine).makespan, 6.0, 1e-12);
  const Timeline waiting = simulate(apart, cost, machine);
  CHECK_NEAR(waiting.makespan, 10.0, 1e-12);
  CHECK_NEAR(waiting.wait[0], 4.0, 1e-12);
}

TEST_MAIN()
