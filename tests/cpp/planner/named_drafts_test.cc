#include "hetsp/planner/named_drafts.h"

#include <algorithm>
#include <set>

#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// Four sequences of 4 tokens on two ranks, a second a token.
struct Small {
  std::vector<Sequence> sequences{4, {4, 0, 0.0}};
  CostModel cost{.seconds_per_token = 1.0};
  Cluster cluster{2, 0, 4};
  PlanOptions options{.exclusive = true};
  Modes modes{cost, cluster, options};
  Task task{sequences, cluster, cost, options, modes};
};

}  // namespace

TEST(names_are_distinct_and_none_is_autos) {
  const std::set<std::string> names(draft_names().begin(), draft_names().end());
  CHECK_EQ(names.size(), named_drafts().size());
  CHECK(!names.contains("auto"));
}

TEST(a_name_makes_its_draft) {
  const Small small;
  CHECK_EQ(make_draft("data-parallel", small.task).micro_batches.front().front().degree, 1);
  CHECK_EQ(make_draft("te-cp", small.task).micro_batches.front().front().degree, 2);
  CHECK_THROWS(BrokenInvariant, "strategy \"none\" makes no draft", make_draft("none", small.task));
}

TEST(groups_that_share_a_rank_follow_each_other_unless_they_may_share) {
  const Small small;
  Draft draft;
  draft.micro_batches = {
      {{.sequences = {0, 1}, .ranks = {0}}, {.sequences = {2}, .ranks = {0}}, {.sequences = {3}, .ranks = {1}}}};
  const Plan apart = price(small.task, draft);
  CHECK(apart.exclusive);
  CHECK_EQ(apart.micro_batches.size(), std::size_t{2});
  CHECK_NEAR(apart.makespan, 12.0, 1e-12);
  const Plan shared = price(small.task, draft, true);
  CHECK(!shared.exclusive);
  CHECK_EQ(shared.micro_batches.size(), std::size_t{1});
  CHECK_NEAR(shared.makespan, 12.0, 1e-12);
}

TEST_MAIN()
