// A large copy through stream_copy of each instruction set against memcpy, source and target touched before and larger than
// every cache. bytes_per_second counts what is copied once.
#include "hetsp/staging/stream_copy.h"

#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

namespace {

using namespace hetsp;

constexpr std::size_t kBytes = std::size_t{256} << 20;

struct Buffers {
  std::vector<char> from = std::vector<char>(kBytes, 3), to = std::vector<char>(kBytes, 1);
};
Buffers& buffers() {
  static Buffers both;
  return both;
}

void plain(benchmark::State& state) {
  Buffers& b = buffers();
  for (auto _ : state) {
    std::memcpy(b.to.data(), b.from.data(), kBytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kBytes));
}
BENCHMARK(plain)->Name("memcpy")->UseRealTime();

void streamed(benchmark::State& state, Isa isa) {
  Buffers& b = buffers();
  const auto block = static_cast<std::size_t>(state.range(0)) << 10;
  for (auto _ : state)
    for (std::size_t done = 0; done < kBytes; done += block)
      staging::stream_copy(b.to.data() + done, b.from.data() + done, block, isa);
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kBytes));
}

const int kRegistered = [] {
  for (const Isa isa : supported_isas())
    benchmark::RegisterBenchmark((std::string("stream_copy/") + name(isa)).c_str(),
                                 [isa](benchmark::State& state) { streamed(state, isa); })
        ->ArgName("KiB")
        ->Arg(4)
        ->Arg(256)
        ->UseRealTime();
  return 0;
}();

}  // namespace
