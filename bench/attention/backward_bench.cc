// The CPU backward without torch: seconds per call and useful FLOP/s by instruction set, dtype and shape, one worker.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "hetsp/attention/cpu/backward.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/number.h"
#include "hetsp/base/thread_pool.h"

namespace {

using namespace hetsp::attention;

constexpr std::int64_t kHeads = 8;

struct Case {
  const char* name;
  std::vector<std::int64_t> lengths;  // causal documents, tokens
  std::int64_t heads_kv, dim;
};

std::vector<std::int64_t> mixed() {
  std::vector<std::int64_t> lengths{8192, 1024, 512};
  lengths.insert(lengths.end(), 8, 256);
  lengths.insert(lengths.end(), 32, 64);
  return lengths;
}

class Numbers {
 public:
  Numbers(DType dtype, std::int64_t count, std::mt19937& random)
      : data_(static_cast<std::size_t>(count) * (dtype == DType::float32 ? 4 : 2)) {
    std::normal_distribution<float> normal;
    for (std::int64_t i = 0; i < count; ++i) {
      const float x = normal(random);
      if (dtype == DType::float32) {
        reinterpret_cast<float*>(data_.data())[i] = x;
      } else {
        reinterpret_cast<BFloat16*>(data_.data())[i] = to_bfloat16(x);
      }
    }
  }
  void* data() { return data_.data(); }

 private:
  std::vector<char> data_;
};

void backward(benchmark::State& state, cpu::Isa isa, DType dtype, const Case& c) {
  std::vector<Segment> segments;
  std::int64_t total = 0;
  double pairs = 0;
  for (const std::int64_t n : c.lengths) {
    segments.push_back({total, total + n, total, total + n, 0, 0, -1, 0});
    total += n, pairs += static_cast<double>(n) * static_cast<double>(n) / 2;
  }
  std::mt19937 random(0);
  const std::int64_t wide = kHeads * c.dim, narrow = c.heads_kv * c.dim;
  Numbers q(dtype, total * wide, random), dout(dtype, total * wide, random), k(dtype, total * narrow, random),
      v(dtype, total * narrow, random), out(dtype, total * wide, random), dq(dtype, total * wide, random),
      dk(dtype, total * narrow, random), dv(dtype, total * narrow, random);
  std::vector<float> lse(static_cast<std::size_t>(kHeads * total)), delta(lse.size());
  const Shape shape{total, total, kHeads, c.heads_kv, c.dim, c.dim, dtype};
  const Score score{0.125, 0.0};
  const auto count = static_cast<std::int64_t>(segments.size());
  hetsp::ThreadPool pool(1);
  cpu::forward({shape,
                score,
                segments.data(),
                count,
                {q.data(), wide, c.dim},
                {k.data(), narrow, c.dim},
                {v.data(), narrow, c.dim},
                nullptr,
                {nullptr, 0, 0},
                nullptr,
                {out.data(), wide, c.dim},
                false,
                lse.data()},
               pool, isa);
  BackwardParams params{};
  params.shape = shape, params.score = score, params.segments = segments.data(), params.segment_count = count;
  params.q = {q.data(), wide, c.dim}, params.k = {k.data(), narrow, c.dim}, params.v = {v.data(), narrow, c.dim};
  params.out = {out.data(), wide, c.dim}, params.dout = {dout.data(), wide, c.dim};
  params.lse = lse.data(), params.delta = params.fill_delta = delta.data();
  params.dq = {dq.data(), wide, c.dim}, params.dk = {dk.data(), narrow, c.dim}, params.dv = {dv.data(), narrow, c.dim};
  for (auto _ : state) cpu::backward(params, pool, isa);
  const double flop = 10.0 * pairs * static_cast<double>(kHeads * c.dim);
  state.counters["FLOP/s"] = benchmark::Counter(flop * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate,
                                                benchmark::Counter::kIs1000);
}

const bool registered = [] {
  for (const cpu::Isa isa : cpu::supported_isas())
    for (const DType dtype : {DType::float32, DType::bfloat16})
      for (const std::int64_t dim : {64, 128})
        for (const std::int64_t heads_kv : {8, 2})
          for (const Case& c :
               {Case{"8x1024", std::vector<std::int64_t>(8, 1024), heads_kv, dim}, Case{"mixed", mixed(), heads_kv, dim},
                Case{"8192", {8192}, heads_kv, dim}, Case{"256x32", std::vector<std::int64_t>(256, 32), heads_kv, dim},
                Case{"2x32", std::vector<std::int64_t>(2, 32), heads_kv, dim}}) {
            const std::string name = std::string("backward/") + cpu::name(isa) +
                                     (dtype == DType::float32 ? "/float32" : "/bfloat16") + "/dim:" + std::to_string(dim) +
                                     "/kv_heads:" + std::to_string(heads_kv) + "/" + c.name;
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
              backward(state, isa, dtype, c);
            })->Unit(benchmark::kMillisecond);
          }
  return true;
}();

}  // namespace
