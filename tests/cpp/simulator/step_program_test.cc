#include "hetsp/simulator/step_program.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "hetsp/base/error.h"
#include "simulator/step_cases.h"
#include "support/check.h"

using namespace step_cases;
using namespace hetsp::simulator;

namespace {

// Seconds of all computations of one rank, by work.
std::map<Work, double> computed(const TaskGraph& graph, int rank) {
  std::map<Work, double> total;
  for (int i = 0; i < graph.size(); ++i) {
    const Task& task = graph.task(i);
    if (task.kind == Task::Kind::compute && task.rank == rank) total[task.work] += task.seconds;
  }
  return total;
}

double sent_bytes(const TaskGraph& graph) {
  double total = 0.0;
  for (int i = 0; i < graph.size(); ++i) {
    if (graph.task(i).kind == Task::Kind::transfer) total += graph.bundle(graph.task(i)).bytes;
  }
  return total;
}

}  // namespace

TEST(the_work_of_all_passes_is_the_planners) {
  for (const bool recompute : {false, true}) {
    const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, small_network(), 4, recompute);
    for (const Strategy& kind : {Strategy{.ring_degree = 4}, Strategy{.head_degree = 4},
                                 Strategy{.head_degree = 2, .ring_degree = 2}, Strategy{.ring_degree = 4, .gather_kv = true}}) {
      const Plan plan = plan_of(4, {{1000, 500500, 0.5}, {10, 55, 0.0}}, {{{group_of(0, 4, kind, {0, 1})}}});
      const TaskGraph graph = lower(plan, cost, {4, 4, small_network()}, {});
      const GroupCost each = cost.group_cost(kind, 4, 4);
      for (int rank = 0; rank < 4; ++rank) {
        auto total = computed(graph, rank);
        CHECK_NEAR(total[Work::attention], each.per_pair * 500555, 1e-9);
        CHECK_NEAR(total[Work::linear], cost.seconds_per_token / 4 * 1010 + 0.5, 1e-9);
      }
    }
  }
}

TEST(a_rings_hops_carry_keys_values_and_gradients) {
  const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, small_network(), 0);
  for (const int degree : {2, 3, 5, 64, 65, 200}) {  // above 64 a step stands for several
    const Plan plan = plan_of(degree, {{1000, 500500, 0.0}}, {{{group_of(0, degree, {.ring_degree = degree}, {0})}}});
    const TaskGraph graph = lower(plan, cost, {degree, 0, small_network()}, {});
    const double expected = (degree - 1) * (1000.0 / degree) * 2 * 4 * 4 * (2 + 2 + 4) * 2;  // 2 layers
    CHECK_NEAR(sent_bytes(graph), expected, 1e-9 * expected);
    CHECK_NEAR(computed(graph, degree - 1)[Work::attention], cost.seconds_per_pair * 500500 / degree, 1e-12);
    int computations = 0;
    for (int i = 0; i < graph.size(); ++i) computations += graph.task(i).rank == 0 && graph.task(i).work == Work::attention;
    CHECK_EQ(computations, 2 * std::min(degree, 64));
  }
}

TEST(groups_over_slow_links_come_first) {
  const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, small_network(), 2);
  const Plan plan =
      plan_of(4, {{10, 55, 0.0}, {20, 210, 0.0}, {40, 820, 0.0}},
              {{{group_of(0, 1, {}, {0}), group_of(0, 2, {.ring_degree = 2}, {1}), group_of(0, 4, {.ring_degree = 4}, {2})}}});
  const TaskGraph graph = lower(plan, cost, {4, 2, small_network()}, {});
  std::vector<int> order;
  for (int i = 0; i < graph.size(); ++i) {
    const Task& task = graph.task(i);
    if (task.rank == 0 && task.group >= 0 && (order.empty() || order.back() != task.group)) order.push_back(task.group);
  }
  CHECK(order == (std::vector<int>{2, 1, 0, 2, 1, 0}));  // forward, backward
}

TEST(a_table_has_delays_and_one_pass) {
  const CostModel cost{.seconds_per_pair = 1e-6,
                       .seconds_per_token = 1e-4,
                       .links = {{2, 1e-4}, {3, 2e-4}},
                       .hop_seconds = 0.5,
                       .micro_batch_seconds = 0.25};
  for (const Strategy& kind :
       {Strategy{.ring_degree = 3}, Strategy{.head_degree = 3}, Strategy{.ring_degree = 3, .gather_kv = true}}) {
    const Plan plan = plan_of(4, {{900, 405450, 0.0}}, {{{group_of(0, 3, kind, {0})}}});
    const TaskGraph graph = lower(plan, cost, {4, 0, small_network()}, {});
    double delays = 0.0;
    for (int i = 0; i < graph.size(); ++i) {
      if (graph.task(i).kind == Task::Kind::transfer) delays += graph.bundle(graph.task(i)).start_seconds;
    }
    CHECK_NEAR(delays, 2e-4 * 900 / 3 + 2 * 0.5, 1e-12);
    CHECK_EQ(sent_bytes(graph), 0.0);
    CHECK_EQ(computed(graph, 3)[Work::fixed], 0.25);  // idle, but it does the fixed work
  }
}

TEST(what_does_not_fit_together_is_refused) {
  const CostModel cost = cost_model_on_network(small_shape(), {1e6, 1e6}, small_network(), 2);
  const Plan plan = plan_of(4, {{10, 55, 0.0}}, {{{group_of(0, 1, {}, {0})}}});
  CHECK_THROWS(InvalidArgument, "the plan has 4 ranks, the machine 8", lower(plan, cost, {8, 2, small_network()}, {}));
  CHECK_THROWS(InvalidArgument, "another network", lower(plan, cost, {4, 2, small_network(0.5)}, {}));
}

TEST_MAIN()
