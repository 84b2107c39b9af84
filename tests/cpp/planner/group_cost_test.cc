#include "hetsp/planner/group_cost.h"

#include <algorithm>
#include <random>
#include <string>

#include "hetsp/base/error.h"
#include "hetsp/planner/cost_model.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// One layer, 8 heads and 2 of keys of 4 elements, 2 bytes an element and 4 of a gradient.
const ModelShape kShape{
    .layers = 1, .hidden = 32, .intermediate = 64, .heads = 8, .kv_heads = 2, .head_dim = 4, .vocabulary = 10};
const Network kNode{.intra_node = {100.0, 0.5}, .inter_node = {10.0, 2.0}, .nics_per_node = 4};
constexpr double kKv = 2 * 2 * 4;  // elements of a token's keys and values

Strategy heads(int degree) { return {.head_degree = degree}; }
Strategy ring(int degree) { return {.ring_degree = degree}; }

// What travels between ranks, counted block by block: every rank holds `tokens` tokens and must end with its share of the
// heads for all tokens. Bytes that one rank sends in the forward of Ulysses.
double ulysses_bytes_counted(int degree, double tokens) {
  double elements = 0.0;
  for (int peer = 1; peer < degree; ++peer) {
    elements += tokens * 4 * 8.0 / degree;                        // queries of the peer's heads
    elements += 2 * tokens * 4 * std::max(2.0, 1.0 * degree) / degree;  // keys, values, repeated to a head for each rank
    elements += tokens * 4 * 8.0 / degree;                        // the output back: tokens of the peer, own heads
  }
  return 2 * elements;
}

}  // namespace

TEST(ulysses_sends_what_a_count_of_blocks_says) {
  for (int degree : {2, 3, 4, 8}) {
    const GroupCost cost = communication_cost(kShape, kNode, heads(degree), degree, 8, 1);
    CHECK_NEAR(cost.communication_per_token * degree, 2 * ulysses_bytes_counted(degree, 1.0) / 100.0, 1e-12);
    CHECK_NEAR(cost.per_sequence, 8 * 0.5, 1e-12);
  }
}

TEST(ring_and_gather_by_hand) {
  for (int degree : {2, 3, 7}) {
    const double bytes = (degree - 1) * kKv * (2 + 2 + 4);
    CHECK_NEAR(communication_cost(kShape, kNode, ring(degree), degree, 8, 1).per_token * degree, bytes / 100.0, 1e-12);
    const Strategy gather{.ring_degree = degree, .gather_kv = true};
    CHECK_NEAR(communication_cost(kShape, kNode, gather, degree, 8, 1).per_token * degree, bytes / 100.0, 1e-12);
  }
  // Over two nodes of 4 a ring has one NIC, a gather all 4.
  CHECK_NEAR(communication_cost(kShape, kNode, ring(8), 8, 4, 1).per_token * 8, 7 * kKv * 8 / 10.0, 1e-12);
  CHECK_NEAR(communication_cost(kShape, kNode, {.ring_degree = 8, .gather_kv = true}, 8, 4, 1).per_token * 8,
             7 * kKv * 8 / 40.0, 1e-12);
  // Recomputation runs the forward's hops again.
  CHECK_NEAR(communication_cost(kShape, kNode, ring(2), 2, 8, 2).per_token * 2, kKv * (2 + 2 + 2 + 4) / 100.0, 1e-12);
  CHECK_NEAR(communication_cost(kShape, kNode, ring(3), 3, 8, 2).per_sequence, 3 * 2 * 0.5, 1e-12);
}

TEST(a_hybrid_is_ulysses_inside_and_a_ring_outside) {
  const GroupCost cost = communication_cost(kShape, kNode, {.head_degree = 4, .ring_degree = 2}, 8, 4, 1);
  const double inside = 2 * ulysses_bytes_counted(4, 1.0) / 100.0;
  const double outside = 2 * 4 * 4 * (2 + 2 + 4) / 10.0;  // keys and values of 4 heads; 4 ranks over 4 NICs
  CHECK_NEAR(cost.per_token * 8, inside + outside, 1e-12);
  CHECK_EQ(communication_cost(kShape, kNode, ring(1), 1, 4, 1).per_token, 0.0);
}

TEST(heads_that_do_not_divide_leave_one_rank_with_more) {
  CHECK_NEAR(head_imbalance(kShape, 8), 1.0, 0.0);
  CHECK_NEAR(head_imbalance(kShape, 3), 9.0 / 8.0, 1e-15);
  CHECK_NEAR(head_imbalance(kShape, 5), 10.0 / 8.0, 1e-15);
  const CostModel cost = cost_model_on_network(kShape, {1e3, 1e3}, kNode, 8);
  CHECK_NEAR(cost.group_cost(heads(3), 3, 8).per_pair, cost.seconds_per_pair / 3 * 9 / 8, 1e-12);
  CHECK_EQ(cost.max_head_degree(), 8);
  CHECK(CostModel{}.max_head_degree() > 1 << 30);
}

TEST(a_ring_costs_what_the_table_of_its_model_says) {
  std::mt19937_64 random(7);
  for (int node : {0, 1, 2, 4, 8}) {
    check::context() = "ranks_per_node " + std::to_string(node);
    for (const bool recompute : {false, true}) {
      Network network = kNode;
      network.intra_node.start_seconds = network.inter_node.start_seconds;  // the table has one start-up for all tiers
      const CostModel cost = cost_model_on_network(kShape, {1e3, 2e3}, network, node, recompute);
      for (int degree = 1; degree <= 20; ++degree) {
        const Sequence sequence{static_cast<std::int64_t>(random() % 1000), static_cast<std::int64_t>(random() % 100000), 0.25};
        const GroupCost group = cost.group_cost(ring(degree), degree, node);
        const double seconds = group.per_pair * static_cast<double>(sequence.visible_pairs) +
                               group.per_token * static_cast<double>(sequence.tokens) + group.per_sequence + 0.25;
        CHECK_NEAR(seconds, cost.seconds(sequence, degree), 1e-9 * seconds);
      }
    }
  }
}

TEST(a_table_ignores_the_kind) {
  const CostModel cost{.seconds_per_pair = 2.0, .seconds_per_token = 3.0, .links = {{2, 0.5}, {3, 1.0}}, .hop_seconds = 0.25};
  const Sequence sequence{10, 55, 0.0};
  for (int degree = 1; degree < 6; ++degree) {
    for (const Strategy& kind : {ring(degree), heads(degree), Strategy{}}) {
      const GroupCost group = cost.group_cost(kind, degree, 8);
      CHECK_NEAR(group.per_pair * 55 + group.per_token * 10 + group.per_sequence, cost.seconds(sequence, degree), 1e-12);
      const double communication = group.communication_per_token * 10 + group.communication_per_sequence;
      CHECK_NEAR(communication, cost.seconds(sequence, degree) - cost.compute_seconds(sequence) / degree, 1e-12);
    }
  }
}

TEST(bad_kinds_are_named) {
  CHECK_THROWS(InvalidArgument, "head_degree is 9, the model has 8 heads",
               communication_cost(kShape, kNode, heads(9), 9, 8, 1));
  CHECK_THROWS(InvalidArgument, "head_degree 2 x ring_degree 3 must be the degree, 5",
               communication_cost(kShape, kNode, {.head_degree = 2, .ring_degree = 3}, 5, 8, 1));
  CHECK_THROWS(InvalidArgument, "shape and network come together", (planner::check(CostModel{.shape = kShape}), 0));
}

TEST_MAIN()
