// Time of one remap: 64 ranks on nodes of 8, tokens of a step whose sequences are log-normal. It runs in every micro-batch.
#include <benchmark/benchmark.h>

#include <random>

#include "hetsp/planner/remap.h"

namespace {

using namespace hetsp::planner;

void to_equal_tokens(benchmark::State& state) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> length(9.0, 1.0);
  std::vector<std::int64_t> tokens(static_cast<std::size_t>(state.range(0)));
  for (auto& t : tokens) t = static_cast<std::int64_t>(length(random));
  const RemapLinks links{8, 1.0, 4.0};
  Remap made;
  for (auto _ : state) benchmark::DoNotOptimize(made = remap(tokens, balanced_targets(tokens, links), links));
  state.counters["moved_%"] =
      100.0 * static_cast<double>(made.moved) / (static_cast<double>(made.targets[0]) * static_cast<double>(tokens.size()));
  state.counters["crossing_%"] = 100.0 * static_cast<double>(made.crossing) / static_cast<double>(made.moved);
}
BENCHMARK(to_equal_tokens)->ArgName("ranks")->Arg(8)->Arg(64)->Arg(1024)->Unit(benchmark::kMicrosecond);

}  // namespace
