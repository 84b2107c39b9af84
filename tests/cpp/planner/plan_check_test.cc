#include "hetsp/planner/plan_check.h"

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// Three sequences on three ranks: 0 on ranks 0 and 2, 1 on rank 1, 2 on rank 2 of a second micro-batch.
Plan sound() {
  Plan plan;
  plan.ranks = 3;
  plan.sequences = {{8, 36}, {4, 10}, {6, 21}};
  plan.micro_batches.resize(2);
  const auto whole = [](int sequence, int rank) {
    Group group;
    group.sequences.emplace_back(sequence), group.ranks.emplace_back(rank);
    return group;
  };
  Group ring = whole(0, 0);
  ring.ranks.emplace_back(2);
  ring.strategy.ring_degree = 2;
  ring.cut = Cut::zigzag;
  plan.micro_batches[0].groups = {ring, whole(1, 1)};
  plan.micro_batches[1].groups = {whole(2, 2)};
  return plan;
}

Group& group(Plan& plan) { return plan.micro_batches[0].groups[0]; }

template <class Break>
void breaks(const char* message, Break how, std::int64_t capacity = 6) {
  Plan plan = sound();
  how(plan);
  CHECK_THROWS(InvalidArgument, message, (planner::check(plan, Cluster{3, 0, capacity}), 0));
}

}  // namespace

TEST(a_sound_plan_passes) {
  planner::check(sound(), Cluster{3, 0, 6});
  CHECK(rank_tokens(sound(), 0) == (std::vector<std::int64_t>{4, 4, 4}));
  CHECK(rank_tokens(sound(), 1) == (std::vector<std::int64_t>{0, 0, 6}));
}

TEST(each_fault_is_found) {
  breaks("rank 2 holds 6 tokens in micro-batch 1, at most 5", [](Plan&) {}, 5);
  breaks("made for 2 ranks", [](Plan& plan) { plan.ranks = 2; });
  breaks("sequence 1 of 4 tokens is in no group", [](Plan& plan) { plan.micro_batches[0].groups.pop_back(); });
  breaks("holds sequence 0, which another", [](Plan& plan) { plan.micro_batches[1].groups[0].sequences.emplace_back(0); });
  breaks("names sequence 3, must be in 0..2", [](Plan& plan) { group(plan).sequences[0] = SequenceIndex(3); });
  breaks("names sequence -1", [](Plan& plan) { group(plan).sequences[0] = SequenceIndex(-1); });
  breaks("group 0 of micro-batch 0 has no sequences", [](Plan& plan) { group(plan).sequences.clear(); });
  breaks("has no ranks", [](Plan& plan) { group(plan).ranks.clear(); });
  breaks("names rank 3, must be in 0..2", [](Plan& plan) { group(plan).ranks[1] = Rank(3); });
  breaks("names rank 0 twice", [](Plan& plan) { group(plan).ranks[1] = Rank(0); });
  breaks("has 2 ranks, but head_degree 1 x ring_degree 3", [](Plan& plan) { group(plan).strategy.ring_degree = 3; });
  breaks("head_degree -1 x ring_degree -2", [](Plan& plan) { group(plan).strategy = {-1, -2, false}; });
  breaks("whole on 2 ranks", [](Plan& plan) { group(plan).cut = Cut::whole; });
  breaks("recomputes activations", [](Plan& plan) { group(plan).activations = Activations::recompute; });
  breaks("offload_ratio of 0;", [](Plan& plan) { group(plan).activations = Activations::offload; });
  breaks("offload_ratio of 0.5;", [](Plan& plan) { group(plan).offload_ratio = 0.5; });
  breaks("offloadable share is 0", [](Plan& plan) {
    group(plan).activations = Activations::offload;
    group(plan).offload_ratio = 0.5;
  });
}

TEST(sharded_parameters_want_every_rank_in_every_micro_batch) {
  Plan plan = sound();
  plan.synchronisation = Synchronisation::layer;
  CHECK_THROWS(InvalidArgument, "rank 0 has neither group nor placeholder in micro-batch 1",
               (planner::check(plan, Cluster{3, 0, 6}), 0));
  fill_placeholders(plan);
  CHECK(plan.micro_batches[0].placeholder.ranks.empty());
  CHECK(plan.micro_batches[1].placeholder.ranks == (std::vector<Rank>{Rank(0), Rank(1)}));
  planner::check(plan, Cluster{3, 0, 6});
  const std::uint64_t with = digest(plan);
  auto& idle = plan.micro_batches[1].placeholder.ranks;
  const auto fails = [&](const char* message) {
    CHECK_THROWS(InvalidArgument, message, (planner::check(plan, Cluster{3, 0, 6}), 0));
  };
  idle[0] = Rank(2);
  fails("the placeholder of micro-batch 1 names rank 2, which has a group");
  idle[0] = Rank(1);
  fails("the placeholder of micro-batch 1 names rank 1 twice");
  idle[0] = Rank(3);
  fails("the placeholder of micro-batch 1 names rank 3, must be in 0..2");
  idle = {Rank(0), Rank(1)};
  plan.synchronisation = Synchronisation::micro_batch;
  fails("micro-batch 1 has a placeholder of 2 ranks, but the plan does not synchronise in every layer");
  fill_placeholders(plan);
  planner::check(plan, Cluster{3, 0, 6});
  plan.synchronisation = Synchronisation::layer;
  CHECK(digest(plan) != with);
}

TEST(a_placeholder_costs_each_of_its_ranks) {
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 10.0, .placeholder_seconds = 7.0};
  Plan plan = sound();
  plan.synchronisation = Synchronisation::layer;
  fill_placeholders(plan);
  predict(plan, cost);
  CHECK_NEAR(plan.micro_batches[1].placeholder.seconds, 7.0, 1e-15);
  CHECK(plan.rank_seconds == (std::vector<double>{31.0, 31.0, 30.0}));
  CHECK(plan.compute_seconds == (std::vector<double>{4.0, 4.0, 10.0}));
  CHECK_NEAR(plan.makespan, 10 + 4 + 10 + 7, 1e-12);  // the idle ranks end last
}

TEST(a_chain_waits_for_the_ranks_it_shares_a_group_with) {
  const CostModel cost{.seconds_per_token = 1.0, .micro_batch_seconds = 10.0};
  Plan plan = sound();
  plan.exclusive = true;
  std::swap(plan.micro_batches[0], plan.micro_batches[1]);  // rank 2 alone for 6 + 10, then the ring with rank 0 for 4 + 10
  predict(plan, cost);
  CHECK(plan.rank_seconds == (std::vector<double>{14.0, 14.0, 30.0}));
  CHECK_NEAR(plan.makespan, 30.0, 1e-12);
  plan.micro_batches.push_back(plan.micro_batches[0]);  // rank 0 after the ring: it began at 16
  plan.micro_batches[2].groups[0].ranks[0] = Rank(0);
  predict(plan, cost);
  CHECK_NEAR(plan.makespan, 16.0 + 14.0 + 16.0, 1e-12);
  CHECK_NEAR(plan.rank_seconds[0], 30.0, 1e-12);
}

TEST(memory_counts_all_groups_of_a_rank) {
  Plan plan = sound();
  plan.micro_batches[0].groups[1].ranks[0] = Rank(0);  // 4 of the ring and 4 of its own
  planner::check(plan, Cluster{3, 0, 8});
  CHECK_THROWS(InvalidArgument, "rank 0 holds 8 tokens in micro-batch 0, at most 7",
               (planner::check(plan, Cluster{3, 0, 7}), 0));
}

TEST(predict_adds_up_groups_by_synchronisation) {
  const CostModel cost{.seconds_per_token = 1.0, .links = {{2, 0.5}}, .hop_seconds = 0.25, .micro_batch_seconds = 10.0};
  Plan plan = sound();
  predict(plan, cost);  // ring: 4 + 2 + 0.25 on ranks 0 and 2
  CHECK(plan.rank_seconds == (std::vector<double>{26.25, 24.0, 32.25}));
  CHECK(plan.compute_seconds == (std::vector<double>{4.0, 4.0, 10.0}));
  CHECK_NEAR(plan.makespan, 32.25, 1e-12);
  plan.synchronisation = Synchronisation::micro_batch;
  predict(plan, cost);
  CHECK_NEAR(plan.makespan, 10 + 6.25 + 10 + 6, 1e-12);
}

TEST(balance_counts_idle_ranks) {
  CHECK_NEAR(balance(std::vector<double>{2.0, 2.0, 0.0, 0.0}), 2.0, 1e-15);
  CHECK_NEAR(balance(std::vector<double>{0.0, 0.0}), 1.0, 0.0);
}

TEST_MAIN()
