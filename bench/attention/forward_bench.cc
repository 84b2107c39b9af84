// The CPU forward without torch: seconds per call and useful FLOP/s by instruction set, dtype and shape, one worker.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/number.h"
#include "hetsp/base/thread_pool.h"

namespace {

using namespace hetsp::attention;

constexpr std::int64_t kHeads = 4;

// `count` causal documents of `length` tokens, 4 heads.
void forward(benchmark::State& state, cpu::Isa isa, DType dtype, std::int64_t count, std::int64_t length, std::int64_t dim) {
  const std::int64_t total = count * length, bytes = dtype == DType::float32 ? 4 : 2;
  std::mt19937 random(0);
  std::normal_distribution<float> normal;
  std::vector<char> inputs[3], out(static_cast<std::size_t>(total * kHeads * dim * bytes));
  for (auto& input : inputs) {
    input.resize(out.size());
    for (std::int64_t i = 0; i < total * kHeads * dim; ++i) {
      const float x = normal(random);
      if (dtype == DType::float32) {
        reinterpret_cast<float*>(input.data())[i] = x;
      } else {
        reinterpret_cast<BFloat16*>(input.data())[i] = to_bfloat16(x);
      }
    }
  }
  std::vector<float> lse(static_cast<std::size_t>(kHeads * total));
  std::vector<Segment> segments;
  for (std::int64_t i = 0; i < count; ++i)
    segments.push_back({i * length, (i + 1) * length, i * length, (i + 1) * length, 0, 0, -1, 0});
  const auto view = [&](const std::vector<char>& data) { return ConstView{data.data(), kHeads * dim, dim}; };
  const ForwardParams params{{total, total, kHeads, kHeads, dim, dim, dtype},
                             {0.125, 0.0},
                             segments.data(),
                             count,
                             view(inputs[0]),
                             view(inputs[1]),
                             view(inputs[2]),
                             nullptr,
                             {nullptr, 0, 0},
                             nullptr,
                             {out.data(), kHeads * dim, dim},
                             false,
                             lse.data()};
  hetsp::ThreadPool pool(1);
  for (auto _ : state) cpu::forward(params, pool, isa);
  const double flop = 4.0 * static_cast<double>(kHeads * dim * count * length * length) / 2;
  state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate,
                                                benchmark::Counter::kIs1000);
}

const bool registered = [] {
  for (const cpu::Isa isa : cpu::supported_isas())
    for (const DType dtype : {DType::float32, DType::bfloat16})
      for (const std::int64_t dim : {64, 128})
        for (const std::int64_t length : {32, 1024}) {
          const std::string name = std::string("forward/") + cpu::name(isa) +
                                   (dtype == DType::float32 ? "/float32" : "/bfloat16") + "/dim:" + std::to_string(dim) +
                                   "/length:" + std::to_string(length);
          benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            forward(state, isa, dtype, 2048 / length, length, dim);
          })->Unit(benchmark::kMillisecond);
        }
  return true;
}();

}  // namespace
