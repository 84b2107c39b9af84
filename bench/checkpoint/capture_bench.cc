// What the copying thread of a capture reaches: large spans through a 64 MiB ring, hashed, into a file system that takes every
// write at once; beside memcpy of as many bytes into as large a ring. The disk is measured by engine_bench.py.
#include "hetsp/checkpoint/capture.h"

#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "hetsp/checkpoint/write_queue.h"
#include "hetsp/staging/ring.h"

namespace {

using namespace hetsp;
using namespace hetsp::checkpoint;

constexpr std::int64_t kSlot = std::int64_t{8} << 20, kRing = std::int64_t{64} << 20, kState = std::int64_t{512} << 20;

class NullFileSystem final : public FileSystem {
 public:
  int open(const std::string&, int, unsigned) override { return 1000; }
  int close(int) override { return 0; }
  std::int64_t pwrite(int, const void*, std::int64_t bytes, std::int64_t) override { return bytes; }
  std::int64_t pread(int, void*, std::int64_t bytes, std::int64_t) override { return bytes; }
  int fallocate(int, std::int64_t) override { return 0; }
  int ftruncate(int, std::int64_t) override { return 0; }
  int fsync(int) override { return 0; }
  int fstat(int, FileStatus&) override { return 0; }
  int stat(const std::string&, FileStatus&) override { return 0; }
  int mkdir(const std::string&, unsigned) override { return 0; }
  int rmdir(const std::string&) override { return 0; }
  int unlink(const std::string&) override { return 0; }
  int rename(const std::string&, const std::string&) override { return 0; }
  int exchange(const std::string&, const std::string&) override { return 0; }
  int list(const std::string&, std::vector<std::string>&) override { return 0; }
  int lock(int, bool) override { return 0; }
  int unlock(int) override { return 0; }
};

const std::vector<char>& source() {
  static const std::vector<char> bytes(static_cast<std::size_t>(kState), 3);
  return bytes;
}

void plain_copy(benchmark::State& state) {
  const staging::Ring ring(kRing, kSlot);
  benchmark::DoNotOptimize(source().data());  // touched before the first round
  for (auto _ : state)
    for (std::int64_t done = 0; done < kState; done += kSlot)
      std::memcpy(ring.slot(static_cast<int>(done / kSlot) % ring.slots()), source().data() + done,
                  static_cast<std::size_t>(kSlot));
  state.SetBytesProcessed(state.iterations() * kState);
}
BENCHMARK(plain_copy)->Name("memcpy")->UseRealTime()->Unit(benchmark::kMillisecond);

void capture(benchmark::State& state, Checksum checksum) {
  NullFileSystem fs;
  staging::Ring ring(kRing, kSlot);
  WriteQueue queue(fs, {IoMode::direct, 1});
  std::vector<Span> spans;
  for (std::int64_t done = 0; done < kState; done += kState / state.range(0))
    spans.push_back({source().data() + done, kState / state.range(0), 0});
  for (auto _ : state) {
    const auto one =
        std::make_shared<Capture>(fs, Capture::Request{"null", std::string(4096, ' '), spans, checksum, IoMode::direct, 1});
    one->run(ring, queue);
    static_cast<void>(one->wait_written());
  }
  state.SetBytesProcessed(state.iterations() * kState);
}

const int kRegistered = [] {
  for (const Checksum checksum : {Checksum::xxh3_128, Checksum::crc32c})
    if (available(checksum))
      benchmark::RegisterBenchmark((std::string("capture/") + name(checksum)).c_str(),
                                   [checksum](benchmark::State& state) { capture(state, checksum); })
          ->ArgName("spans")
          ->Arg(128)
          ->Arg(8192)
          ->UseRealTime()
          ->Unit(benchmark::kMillisecond);
  return 0;
}();

}  // namespace
