// Time to plan, native and on one core: log-normal lengths (median 1600 tokens, sigma 1.5), as a web crawl has them, in one
// micro-batch. Counters: gap over the certified bound, and the makespan of the two strategies without a search over ours.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "hetsp/planner/planner.h"
#include "hetsp/planner/workload.h"

namespace {

using namespace hetsp::planner;

std::vector<Sequence> log_normal(int count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> tokens(std::log(1600.0), 1.5);
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < count; ++i)
    lengths.push_back(std::clamp(static_cast<std::int64_t>(tokens(random)), std::int64_t{1}, std::int64_t{131072}));
  return make_workload(lengths);
}

// A decoder of 8 billion parameters on GPUs of 400 TFLOP/s with links of 50 GB/s.
const CostModel kCost = cost_model_from_model({}, 300e12, 400e12, 50e9, 10e-6);

void plan(benchmark::State& state) {
  const auto sequences = log_normal(static_cast<int>(state.range(0)), 1);
  Cluster cluster;
  cluster.ranks = static_cast<std::int32_t>(state.range(1));
  // 80 % full: what a trainer aims at.
  cluster.tokens_per_rank = total_tokens(sequences) * 5 / 4 / cluster.ranks + 1;
  PlanOptions options;
  options.work_limit = state.range(2);
  Plan made;
  for (auto _ : state) benchmark::DoNotOptimize(made = make_plan(sequences, cluster, kCost, options));
  const auto makespan = [&](const char* strategy) {
    PlanOptions other;
    other.strategy = strategy;
    return make_plan(sequences, cluster, kCost, other).makespan;
  };
  state.counters["gap_%"] = 100.0 * made.gap();
  state.counters["static_x"] = makespan("static") / made.makespan;
  state.counters["micro_batches"] = static_cast<double>(made.micro_batches.size());
}

// sequences, ranks, work limit (1: the first plan only; 0: the default)
BENCHMARK(plan)
    ->ArgNames({"sequences", "ranks", "work"})
    ->Args({6, 4, 0})
    ->Args({512, 64, 1})
    ->Args({512, 64, 0})
    ->Args({1024, 1024, 1})
    ->Args({1024, 1024, 0})
    ->Args({16384, 8192, 1})
    ->Unit(benchmark::kMillisecond);

}  // namespace
