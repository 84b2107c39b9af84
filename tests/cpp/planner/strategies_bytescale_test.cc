#include "hetsp/planner/strategies/bytescale.h"

#include <algorithm>
#include <cmath>

#include "hetsp/base/error.h"
#include "hetsp/planner/plan_check.h"
#include "hetsp/planner/presets.h"
#include "support/check.h"

using namespace hetsp;
using namespace hetsp::planner;

namespace {

// ByteScale's 7B, whose host memory lets a 64K sequence hide half of its activations, as the paper measures; or without it.
struct Step {
  const Preset& setting = preset("bytescale-7b");
  std::vector<Sequence> sequences;
  Cluster cluster;

  explicit Step(bool host, const std::vector<std::int64_t>& lengths)
      : sequences(setting.workload(lengths)), cluster(setting.cluster(64, 1 << 20)) {
    if (!host) cluster.host = {};
  }
  [[nodiscard]] Plan plan(const char* strategy) const {
    PlanOptions options;
    options.strategy = strategy, options.exclusive = true;
    return make_plan(sequences, cluster, setting.cost, options);
  }
};

const std::vector<std::int64_t> kLengths{300'000, 131'072, 65'536, 40'000, 8'192, 8'000, 4'000, 100, 50};

}  // namespace

TEST(offloading_saves_ranks_and_passes_the_check) {
  for (const char* strategy : {"bytescale-naive", "bytescale", "bytescale-pp"}) {
    check::context() = strategy;
    const auto degree_of_longest = [](const Plan& plan) {
      for (const auto& micro_batch : plan.micro_batches)
        for (const auto& group : micro_batch.groups)
          if (group.sequences.front().value() == 0) return group.ranks.size();
      return std::size_t{0};
    };
    const Plan kept = Step(false, kLengths).plan(strategy), offloaded = Step(true, kLengths).plan(strategy);
    CHECK_EQ(degree_of_longest(kept), 37u);  // ceil(300,000 / 8192)
    CHECK(degree_of_longest(offloaded) < 10u);
    for (const auto& micro_batch : offloaded.micro_batches)
      for (const auto& group : micro_batch.groups) {
        const auto tokens = offloaded.sequences[group.sequences.front().value()].tokens;
        CHECK((group.offload_ratio > 0.0) == (tokens > 8192));
      }
  }
}

TEST(more_than_may_leave_the_device_is_refused) {
  const Step step(true, kLengths);
  Plan plan = step.plan("bytescale");
  for (auto& micro_batch : plan.micro_batches)
    for (auto& group : micro_batch.groups)
      if (group.offload_ratio > 0.0) group.offload_ratio *= 0.9;
  CHECK_THROWS(InvalidArgument, "have room for", planner::check(plan, step.cluster));
}

TEST(balance_schedules_end_earlier_than_the_naive_one) {
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 200; ++i) lengths.push_back(i % 40 == 0 ? 100'000 + 1000 * i : 1000 + 77 * i % 7000);
  const Step step(false, lengths);
  CHECK(step.plan("bytescale").makespan < step.plan("bytescale-naive").makespan);
}

TEST_MAIN()
