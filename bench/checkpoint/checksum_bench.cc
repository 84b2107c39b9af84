// Checksums of memory larger than every cache, per instruction set; and of extents that lie in the cache, as a capture meets
// them straight after the copy.
#include "hetsp/checkpoint/checksum.h"

#include <benchmark/benchmark.h>

#include <vector>

#include "hetsp/checkpoint/crc32c.h"

namespace {

using namespace hetsp;
using namespace hetsp::checkpoint;

const std::vector<char>& memory() {
  static const std::vector<char> bytes(std::size_t{256} << 20, 3);
  return bytes;
}

void hash_memory(benchmark::State& state, Checksum checksum, Isa isa) {
  const auto bytes = static_cast<std::size_t>(state.range(0)) << 10;
  Hasher hasher(checksum, isa);
  for (auto _ : state) {
    hasher.update(memory().data(), bytes);
    benchmark::DoNotOptimize(hasher.hex());
    hasher.reset();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

void crc_by_table(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0)) << 10;
  for (auto _ : state) benchmark::DoNotOptimize(crc32c_portable(0, memory().data(), bytes));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}
BENCHMARK(crc_by_table)->ArgName("KiB")->Arg(128)->UseRealTime();

const int kRegistered = [] {
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c}) {
    if (!available(checksum)) continue;
    for (const Isa isa : supported_isas()) {
      if (checksum == Checksum::crc32c && isa != Isa::portable) continue;  // it has one implementation
      benchmark::RegisterBenchmark((std::string(name(checksum)) + "/" + name(isa)).c_str(),
                                   [=](benchmark::State& state) { hash_memory(state, checksum, isa); })
          ->ArgName("KiB")
          ->Arg(128)
          ->Arg(256 << 10)
          ->UseRealTime();
    }
  }
  return 0;
}();

}  // namespace
