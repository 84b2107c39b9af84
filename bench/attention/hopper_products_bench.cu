// How fast wgmma runs, alone and beside exponentials: the numbers that the design of an attention kernel starts from. `program`
// runs all measurements, `program WORD...` those whose name holds a word.
//
//   cmake --build build --target gpu_programs
#include <cstdint>
#include <cstdio>
#include <functional>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"
#include "hopper_timing.cuh"

using namespace hopper_bench;  // NOLINT(google-build-using-namespace)

namespace {

// `turns` times 8 products m64 x N x 16 per warpgroup; Batch turns between two waits for all of them.
template <int N, int Warpgroups, bool RegistersA, bool MnB, int Batch>
struct Products {
  static constexpr int threads = 128 * Warpgroups, K = 128;
  using TileA = SharedTile<64 * Warpgroups, K>;
  using TileB = std::conditional_t<MnB, SharedTile<K, N>, SharedTile<N, K>>;
  struct Shared {
    alignas(1024) unsigned char a[TileA::bytes];
    alignas(1024) unsigned char b[TileB::bytes];
  };
  int turns;
  float* out;
  long long* clocks;

  __device__ void operator()(Shared& shared) const {
    auto* words = reinterpret_cast<std::uint32_t*>(shared.a);
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Shared)) / 4; i += threads)
      words[i] = pack<BFloat16>(noise(i * 2 + blockIdx.x * 77777), noise(i * 2 + 1000003));
    fence_async_proxy();
    __syncthreads();
    const int first = warpgroup_index() * 64;
    float sum[N / 2];
#pragma unroll
    for (int r = 0; r < N / 2; ++r) sum[r] = 0;
    std::uint32_t a[K / 16][4];
#pragma unroll
    for (int i = 0; i < K / 4; ++i) a[i / 4][i % 4] = words[threadIdx.x + i * threads];
    const long long begin = clock64();
#pragma unroll 1
    for (int turn = 0; turn < turns; turn += Batch) {
      hold(sum);
      mma_fence();
#pragma unroll
      for (int batch = 0; batch < Batch; ++batch)
#pragma unroll
        for (int k = 0; k < K; k += 16) {
          std::uint64_t b = 0;
          if constexpr (MnB) {
            b = TileB::mn_major(shared.b, k, 0);
          } else {
            b = TileB::k_major(shared.b, 0, k);
          }
          if constexpr (RegistersA) {
            mma_rs<BFloat16, N, MnB>(sum, a[k / 16], b, true);
          } else {
            mma_ss<BFloat16, N, false, MnB>(sum, TileA::k_major(shared.a, first, k), b, true);
          }
        }
      mma_commit();
      mma_wait<0>();
      hold(sum);
    }
    const long long end = clock64();
    float total = 0;
#pragma unroll
    for (int r = 0; r < N / 2; ++r) total += sum[r];
    out[blockIdx.x * threads + threadIdx.x] = total;
    if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = end - begin;
  }
};

template <int N, int Warpgroups, bool RegistersA, bool MnB, int Batch>
void products() {
  constexpr int turns = 4096;
  backend::Buffer<float> out(std::vector<float>(static_cast<std::size_t>(multiprocessors) * 128 * Warpgroups));
  backend::Buffer<long long> clocks(std::vector<long long>(1));
  const double ms =
      best_ms(multiprocessors, Products<N, Warpgroups, RegistersA, MnB, Batch>{turns, out.device(), clocks.device()});
  const double products = 8.0 * turns * Warpgroups, flops = products * 2 * 64 * N * 16 * multiprocessors;
  const double cycles = static_cast<double>(clocks.fetch()[0]);
  std::printf(
      "m64n%dk16 A in %s, B %s, %d warpgroups, a wait every %d: %.0f TFLOP/s, %.1f cycles each (ideal %.0f), %.0f MHz\n", N,
      RegistersA ? "registers" : "shared", MnB ? "MN-major" : "K-major", Warpgroups, 8 * Batch, flops / ms * 1e-9,
      cycles / products, N / 2.0, cycles / ms * 1e-3);
}

// How long a warpgroup is held up by issuing products, and until they are done. Cycles, least of some turns.
template <int Count, bool RegistersA>
struct Issue {
  static constexpr int threads = 128, N = 128, K = 128;
  using TileA = SharedTile<64, K>;
  using TileB = SharedTile<N, K>;
  struct Shared {
    alignas(1024) unsigned char a[TileA::bytes];
    alignas(1024) unsigned char b[TileB::bytes];
  };
  long long* clocks;  // [2]
  float* out;

  __device__ void operator()(Shared& shared) const {
    auto* words = reinterpret_cast<std::uint32_t*>(shared.a);
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Shared)) / 4; i += threads) words[i] = 0x3f803f80u;
    fence_async_proxy();
    __syncthreads();
    float sum[N / 2];
#pragma unroll
    for (int r = 0; r < N / 2; ++r) sum[r] = 0;
    const std::uint32_t a[4] = {words[threadIdx.x], words[threadIdx.x + 128], words[threadIdx.x + 256],
                                words[threadIdx.x + 384]};
    long long least[2] = {1 << 30, 1 << 30};
#pragma unroll 1
    for (int turn = 0; turn < 20; ++turn) {
      __syncthreads();
      hold(sum);
      mma_fence();
      const long long begin = clock64();
#pragma unroll
      for (int i = 0; i < Count; ++i) {
        if constexpr (RegistersA) {
          mma_rs<BFloat16, N, true>(sum, a, TileB::mn_major(shared.b, 16 * (i % 8), 0), true);
        } else {
          mma_ss<BFloat16, N>(sum, TileA::k_major(shared.a, 0, 16 * (i % 8)), TileB::k_major(shared.b, 0, 16 * (i % 8)), true);
        }
      }
      mma_commit();
      const long long issued = clock64();
      mma_wait<0>();
      hold(sum);
      const long long done = clock64();
      if (issued - begin < least[0]) least[0] = issued - begin;
      if (done - begin < least[1]) least[1] = done - begin;
    }
    float total = 0;
#pragma unroll
    for (int r = 0; r < N / 2; ++r) total += sum[r];
    out[threadIdx.x] = total;
    if (threadIdx.x == 0) clocks[0] = least[0], clocks[1] = least[1];
  }
};

template <int Count, bool RegistersA>
void issue() {
  backend::Buffer<float> out(std::vector<float>(128));
  backend::Buffer<long long> clocks(std::vector<long long>(2));
  backend::run(1, Issue<Count, RegistersA>{clocks.device(), out.device()});
  const std::vector<long long> got = clocks.fetch();
  std::printf("%d products m64n128k16, A in %s, by one warpgroup: issued after %lld cycles, done after %lld\n", Count,
              RegistersA ? "registers" : "shared", got[0], got[1]);
}

// A step of attention's forward: 8 products S, 8 products O, 64 exponentials a thread of the S before, by one warpgroup or two
// in no order. Interleaved: 8 exponentials behind each product of O; else behind all of them.
template <int Warpgroups, bool Interleaved>
struct Overlap {
  static constexpr int threads = 128 * Warpgroups, N = 128, K = 128;
  using TileA = SharedTile<64 * Warpgroups, K>;
  using TileB = SharedTile<N, K>;
  struct Shared {
    alignas(1024) unsigned char a[TileA::bytes];
    alignas(1024) unsigned char b[TileB::bytes];
  };
  int turns;
  float* out;
  long long* clocks;

  static __device__ float exponential(float x) {
    float y;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ void operator()(Shared& shared) const {
    auto* words = reinterpret_cast<std::uint32_t*>(shared.a);
    for (int i = static_cast<int>(threadIdx.x); i < static_cast<int>(sizeof(Shared)) / 4; i += threads)
      words[i] = pack<BFloat16>(noise(i * 2 + blockIdx.x * 77777) * 0.1f, noise(i * 2 + 1000003) * 0.1f);
    fence_async_proxy();
    __syncthreads();
    const int first = warpgroup_index() * 64;
    float s[N / 2], o[N / 2];
    std::uint32_t p[K / 16][4];
#pragma unroll
    for (int r = 0; r < N / 2; ++r) s[r] = o[r] = 0;
#pragma unroll
    for (int i = 0; i < K / 4; ++i) p[i / 4][i % 4] = words[threadIdx.x + i * threads];
    const long long begin = clock64();
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
      hold(s), hold(o);
      mma_fence();
#pragma unroll
      for (int k = 0; k < K; k += 16)
        mma_ss<BFloat16, N>(s, TileA::k_major(shared.a, first, k), TileB::k_major(shared.b, 0, k), k > 0);
      mma_commit();
      if constexpr (Interleaved) {
        mma_wait<0>();
        hold(s);
        mma_fence();
#pragma unroll
        for (int k = 0; k < K; k += 16) {
          mma_rs<BFloat16, N, true>(o, p[k / 16], TileB::mn_major(shared.b, k, 0), true);
#pragma unroll
          for (int i = 0; i < 8; ++i) s[k / 2 + i] = exponential(s[k / 2 + i] - 1.0f);
        }
        mma_commit();
      } else {
#pragma unroll
        for (int k = 0; k < K; k += 16) mma_rs<BFloat16, N, true>(o, p[k / 16], TileB::mn_major(shared.b, k, 0), true);
        mma_commit();
        mma_wait<1>();
        hold(s);
#pragma unroll
        for (int i = 0; i < N / 2; ++i) s[i] = exponential(s[i] - 1.0f);
      }
      mma_wait<0>();
      hold(o);
#pragma unroll
      for (int i = 0; i < K / 16; ++i)
#pragma unroll
        for (int x = 0; x < 4; ++x) p[i][x] = pack<BFloat16>(s[8 * i + 2 * x], s[8 * i + 2 * x + 1]);
    }
    const long long end = clock64();
    float total = 0;
#pragma unroll
    for (int r = 0; r < N / 2; ++r) total += o[r] + s[r];
    out[blockIdx.x * threads + threadIdx.x] = total;
    if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = end - begin;
  }
};

template <int Warpgroups, bool Interleaved>
void overlap() {
  constexpr int turns = 2048;
  backend::Buffer<float> out(std::vector<float>(static_cast<std::size_t>(multiprocessors) * 128 * Warpgroups));
  backend::Buffer<long long> clocks(std::vector<long long>(1));
  best_ms(multiprocessors, Overlap<Warpgroups, Interleaved>{turns, out.device(), clocks.device()});
  std::printf("S, O and exponentials, %d warpgroups, %s: %.0f cycles a step (products alone %d, exponentials %d)\n", Warpgroups,
              Interleaved ? "interleaved with O" : "behind O", static_cast<double>(clocks.fetch()[0]) / turns,
              1024 * Warpgroups, 512 * Warpgroups);
}

}  // namespace

int main(int argc, char** argv) {
  return run(
      argc, argv,
      {
          {"mma_128_1", products<128, 1, false, false, 8>},
          {"mma_128_2", products<128, 2, false, false, 8>},
          {"mma_128_3", products<128, 3, false, false, 8>},
          {"mma_128_1_wait", products<128, 1, false, false, 1>},
          {"mma_128_2_wait", products<128, 2, false, false, 1>},
          {"mma_128_2_mn", products<128, 2, false, true, 8>},
          {"mma_128_2_rs_mn", products<128, 2, true, true, 8>},
          {"mma_128_1_rs_mn", products<128, 1, true, true, 8>},
          {"mma_128_2_rs_mn_wait", products<128, 2, true, true, 1>},
          {"mma_64_2", products<64, 2, false, false, 8>},
          {"mma_64_2_rs_mn", products<64, 2, true, true, 8>},
          {"mma_64_3", products<64, 3, false, false, 8>},
          {"mma_96_2", products<96, 2, false, false, 8>},
          {"mma_176_2", products<176, 2, false, false, 8>},
          {"mma_192_2", products<192, 2, false, false, 8>},
          {"mma_256_1", products<256, 1, false, false, 8>},
          {"mma_256_2", products<256, 2, false, false, 8>},
          {"mma_256_2_rs_mn", products<256, 2, true, true, 8>},
          {"issue", [] { issue<1, false>(), issue<2, false>(), issue<4, false>(), issue<8, false>(), issue<16, false>(); }},
          {"issue_rs", [] { issue<1, true>(), issue<2, true>(), issue<4, true>(), issue<8, true>(), issue<16, true>(); }},
          {"overlap", [] { overlap<1, false>(), overlap<1, true>(), overlap<2, false>(), overlap<2, true>(); }},
      });
}
