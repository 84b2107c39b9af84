#include "hetsp/planner/draft.h"

#include <numeric>
#include <random>
#include <set>

#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/workload.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

int nodes_of(const std::vector<std::int32_t>& ranks, int ranks_per_node) {
  std::set<int> nodes;
  for (const auto rank : ranks) nodes.insert(rank / ranks_per_node);
  return static_cast<int>(nodes.size());
}

}  // namespace

TEST(groups_stay_inside_nodes_where_they_fit) {
  const auto ranks = place({3, 8, 5, 8, 4, 4}, {32, 8, 1});
  CHECK_EQ(ranks[1].front(), 0);
  for (std::size_t g = 0; g < ranks.size(); ++g) CHECK_EQ(nodes_of(ranks[g], 8), 1);
  CHECK_EQ(ranks[0].front() / 8, ranks[2].front() / 8);  // 3 beside 5: best fit
}

TEST(a_large_group_takes_whole_nodes_and_part_of_one_more) {
  const auto ranks = place({19, 5}, {32, 8, 1});
  CHECK_EQ(nodes_of(ranks[0], 8), 3);
  CHECK_EQ(nodes_of(ranks[1], 8), 1);
}

TEST(what_fits_no_node_straddles) {
  const auto ranks = place({5, 5, 5}, {16, 8, 1});
  CHECK_EQ(nodes_of(ranks[0], 8) + nodes_of(ranks[1], 8) + nodes_of(ranks[2], 8), 4);
}

TEST(random_groups_get_disjoint_ranks) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    check::context() = "seed " + std::to_string(seed);
    std::mt19937_64 random(seed);
    const auto pick = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
    const Cluster cluster{pick(1, 40), pick(0, 9), 1};
    std::vector<int> degrees;
    for (int left = cluster.ranks; left > 0 && pick(0, 9) > 0;) {
      degrees.push_back(pick(1, pick(1, left)));
      left -= degrees.back();
    }
    std::set<std::int32_t> taken;
    const auto ranks = place(degrees, cluster);
    for (std::size_t g = 0; g < degrees.size(); ++g) {
      CHECK_EQ(static_cast<int>(ranks[g].size()), degrees[g]);
      for (const auto rank : ranks[g]) CHECK(rank >= 0 && rank < cluster.ranks && taken.insert(rank).second);
    }
  }
}

TEST(phases_that_share_ranks_become_micro_batches) {
  Draft draft;
  draft.micro_batches.push_back({{.kind = Kind::ring, .degree = 4, .sequences = {0}, .ranks = {0, 1, 2, 3}},
                                 {.kind = Kind::ring, .degree = 2, .sequences = {1}, .ranks = {0, 1}},
                                 {.sequences = {2}, .ranks = {3}},
                                 {.sequences = {}, .ranks = {2}},
                                 {.sequences = {3}, .ranks = {1}}});
  const Draft phases = serialise(draft, 4);
  CHECK_EQ(phases.micro_batches.size(), 3u);
  CHECK_EQ(phases.micro_batches[1].size(), 2u);
  CHECK_EQ(phases.micro_batches[2][0].sequences[0], 3);
}

TEST(kinds_become_strategies_and_cuts) {
  const auto sequences = make_workload(std::vector<std::int64_t>{40, 30, 20, 10});
  Draft draft;
  draft.micro_batches.push_back({{.kind = Kind::ulysses, .degree = 2, .sequences = {0}},
                                 {.kind = Kind::gather, .degree = 2, .sequences = {1}},
                                 {.kind = Kind::ring, .degree = 3, .sequences = {2}},
                                 {.sequences = {3}}});
  Plan plan = make_plan(sequences, draft, {8, 0, 30}, Synchronisation::layer);
  plan.exclusive = true;
  planner::check(plan, {8, 0, 30});
  const auto& groups = plan.micro_batches[0].groups;
  CHECK(name_of(groups[0].strategy) == "ring" && groups[0].cut == Cut::zigzag && groups[0].ranks.size() == 3);
  CHECK(name_of(groups[1].strategy) == "ulysses" && groups[1].cut == Cut::contiguous);
  CHECK(name_of(groups[2].strategy) == "gather" && groups[2].strategy.gather_kv);
  CHECK(name_of(groups[3].strategy) == "whole" && groups[3].cut == Cut::whole);
  CHECK(name_of(Strategy{2, 2, false}) == "hybrid");
  for (const char* name : {"whole", "ring", "ulysses", "gather"}) CHECK(name_of(*kind_from(name)) == name);
  CHECK(!kind_from("tree").has_value());
}

TEST_MAIN()
