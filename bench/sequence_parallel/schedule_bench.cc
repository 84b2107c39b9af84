// How long a rank takes to make its schedule, and to prove those of all ranks: paid once per plan, before the step.
#include "hetsp/sequence_parallel/schedule.h"

#include <benchmark/benchmark.h>

#include "hetsp/sequence_parallel/schedule_check.h"

namespace {

using namespace hetsp;
using namespace hetsp::sequence_parallel;

// Half of the tokens in one sequence on all ranks, the rest in whole documents of 512 tokens.
planner::Plan mixed_plan(int ranks) {
  planner::Plan plan;
  plan.ranks = ranks;
  plan.micro_batches.resize(1);
  const auto add = [&](std::int64_t tokens, std::vector<Rank> members, planner::Cut cut) {
    planner::Group group;
    group.sequences = {SequenceIndex(static_cast<int>(plan.sequences.size()))};
    group.strategy.ring_degree = static_cast<int>(members.size());
    group.ranks = std::move(members);
    group.cut = cut;
    plan.sequences.push_back({tokens, tokens * (tokens + 1) / 2, 0.0});
    plan.micro_batches[0].groups.push_back(std::move(group));
  };
  std::vector<Rank> all;
  for (int rank = 0; rank < ranks; ++rank) all.emplace_back(rank);
  add(4096LL * ranks, all, planner::Cut::zigzag);
  for (int rank = 0; rank < ranks; ++rank)
    for (int document = 0; document < 8; ++document) add(512, {Rank(rank)}, planner::Cut::whole);
  return plan;
}

void make(benchmark::State& state) {
  const auto plan = mixed_plan(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(make_schedule(make_layout(plan, 0), Rank(0), {}));
}
BENCHMARK(make)->Arg(4)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

void prove(benchmark::State& state) {
  const auto plan = mixed_plan(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    const Layout layout = make_layout(plan, 0);
    std::vector<Schedule> schedules;
    std::vector<std::vector<Step>> programs;
    for (int rank = 0; rank < plan.ranks; ++rank) {
      schedules.push_back(make_schedule(layout, Rank(rank), {}));
      programs.push_back(make_program({&schedules.back(), 1}));
    }
    check_coverage(layout, schedules, {});
    check_progress(programs);
  }
}
BENCHMARK(prove)->Arg(4)->Arg(16)->Arg(64)->Unit(benchmark::kMicrosecond);

}  // namespace
