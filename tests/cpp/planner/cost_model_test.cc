#include "hetsp/planner/cost_model.h"

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

TEST(link_table_is_linear_between_its_points) {
  CostModel cost;
  CHECK_EQ(cost.link_seconds_per_token(7), 0.0);
  cost.links = {{4, 2.0}};
  for (int degree : {2, 4, 9}) CHECK_EQ(cost.link_seconds_per_token(degree), 2.0);
  CHECK_EQ(cost.link_seconds_per_token(1), 0.0);
  cost.links = {{2, 1.0}, {4, 2.0}, {8, 6.0}};
  CHECK_NEAR(cost.link_seconds_per_token(3), 1.5, 1e-15);
  CHECK_NEAR(cost.link_seconds_per_token(7), 5.0, 1e-15);
  CHECK_NEAR(cost.link_seconds_per_token(10), 8.0, 1e-15);
  cost.links = {{2, 3.0}, {4, 1.0}};  // falling: never below the last point
  CHECK_NEAR(cost.link_seconds_per_token(100), 1.0, 1e-15);
}

TEST(a_sequence_of_fixed_numbers) {
  const CostModel cost{.seconds_per_pair = 2.0, .seconds_per_token = 3.0, .links = {{2, 0.5}, {3, 1.0}}, .hop_seconds = 0.25};
  const Sequence sequence{10, 55, 0.125};
  CHECK_NEAR(cost.compute_seconds(sequence), 140.0, 0.0);
  CHECK_NEAR(cost.seconds(sequence, 1), 140.125, 0.0);
  CHECK_NEAR(cost.seconds(sequence, 2), 70.0 + 2.5 + 0.25 + 0.125, 1e-12);
  CHECK_NEAR(cost.seconds(sequence, 5), 28.0 + 2.0 * 2.0 + 1.0 + 0.125, 1e-12);
  const std::vector<Sequence> sequences{sequence};
  const SequenceSeconds table(cost, sequences, 6);
  for (int degree = 1; degree <= 6; ++degree) CHECK_NEAR(table(0, degree), cost.seconds(sequence, degree), 1e-12);
}

TEST(model_shape_by_hand) {
  // One layer, hidden 4, one head of 4: Q, K, V and output 4 x 16 weights, MLP 3 x 4 x 8, output projection 4 x 10.
  const ModelShape shape{
      .layers = 1, .hidden = 4, .intermediate = 8, .heads = 1, .kv_heads = 1, .head_dim = 4, .vocabulary = 10, .bytes = 2};
  const CostModel cost = cost_model_from_model(shape, 100.0, 1000.0, 10.0, 0.5);
  CHECK_NEAR(cost.seconds_per_pair, 7 * 2 * 4 / 100.0, 1e-12);
  CHECK_NEAR(cost.seconds_per_token, 6 * (64 + 96 + 40) / 1000.0, 1e-12);
  const double hop = 2 * 4 * (2 + 2 + 4) / 10.0;  // keys and values twice in 2 bytes, their gradients in 4
  for (int degree : {2, 3, 4, 9}) CHECK_NEAR(cost.link_seconds_per_token(degree), (degree - 1) * hop, 1e-12);
  CHECK_NEAR(cost.hop_seconds, 1.0, 1e-12);
}

TEST(a_placeholder_collects_the_weights_twice_and_sends_gradients_once) {
  const ModelShape shape{
      .layers = 1, .hidden = 4, .intermediate = 8, .heads = 1, .kv_heads = 1, .head_dim = 4, .vocabulary = 10, .bytes = 2};
  const double bytes = 3 * 2 * (64 + 96 + 40);
  const auto seconds = [&](double inside, double nic, int nics, int node) {
    const Network network{.intra_node = {inside, 0.0}, .inter_node = {nic, 0.0}, .nics_per_node = nics};
    return cost_model_on_network(shape, {1.0, 1.0}, network, node).placeholder_seconds;
  };
  CHECK_NEAR(seconds(10.0, 1.0, 4, 0), bytes / 10.0, 1e-9);  // one node: the NICs do nothing
  CHECK_NEAR(seconds(10.0, 1.0, 4, 8), bytes / 4.0, 1e-9);
  CHECK_NEAR(seconds(10.0, 1.0, 0, 8), bytes / 8.0, 1e-9);  // a NIC for each rank
  CHECK_NEAR(seconds(10.0, 5.0, 4, 8), bytes / 10.0, 1e-9);
}

TEST(bad_values_are_named) {
  CHECK_THROWS(InvalidArgument, "placeholder_seconds is -2", (planner::check(CostModel{.placeholder_seconds = -2.0}), 0));
  CHECK_THROWS(InvalidArgument, "seconds_per_pair is -1", (planner::check(CostModel{.seconds_per_pair = -1.0}), 0));
  CHECK_THROWS(InvalidArgument, "hop_seconds is inf", (planner::check(CostModel{.hop_seconds = 1.0 / 0.0}), 0));
  CHECK_THROWS(InvalidArgument, "link degree 2 follows 2", (planner::check(CostModel{.links = {{2, 1.0}, {2, 1.0}}}), 0));
  CHECK_THROWS(InvalidArgument, "link degree 1 follows 1", (planner::check(CostModel{.links = {{1, 1.0}}}), 0));
  CHECK_THROWS(InvalidArgument, "linear_flops is 0", cost_model_from_model({}, 1.0, 0.0, 1.0));
  CHECK_THROWS(InvalidArgument, "heads is 6, must be a multiple of kv_heads, 4",
               cost_model_from_model({.heads = 6, .kv_heads = 4}, 1.0, 1.0, 1.0));
  CHECK_THROWS(InvalidArgument, "degree is 0", (CostModel{}.seconds({1, 1}, 0)));
}

TEST_MAIN()
