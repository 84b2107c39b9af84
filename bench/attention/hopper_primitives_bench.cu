// What Hopper's primitives cost beside products (hopper_products_bench.cu): words, launches, copies, atomics, tokens. `program`
// runs all measurements, `program WORD...` those whose name holds a word.
//
//   cmake --build build --target gpu_programs
#include <cstdint>
#include <cstdio>
#include <functional>
#include <type_traits>
#include <vector>

#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hopper_timing.cuh"

using namespace hopper_bench;  // NOLINT(google-build-using-namespace)

namespace {

enum class Word { exp2, tanh, pack, fma, log2 };
template <Word W, int Threads>
struct Words {
  static constexpr int threads = Threads, each = 16;
  struct Shared {};
  int turns;
  float* out;
  long long* clocks;
  __device__ void operator()(Shared&) const {
    float x[each];
#pragma unroll
    for (int i = 0; i < each; ++i) x[i] = noise(threadIdx.x * 31 + i);
    __syncthreads();
    const long long begin = clock64();
#pragma unroll 1
    for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
      for (int i = 0; i < each; ++i) {
        if constexpr (W == Word::exp2) x[i] = exp2_fast(x[i]);
        if constexpr (W == Word::tanh) x[i] = tanh_fast(x[i]);
        if constexpr (W == Word::log2) x[i] = log2_fast(x[i]);
        if constexpr (W == Word::fma) x[i] = x[i] * 0.99f + 0.01f;
        if constexpr (W == Word::pack) x[i] = __uint_as_float(pack<BFloat16>(x[i], x[(i + 1) % each]));
      }
    }
    __syncthreads();
    const long long end = clock64();
    float total = 0;
#pragma unroll
    for (int i = 0; i < each; ++i) total += x[i];
    out[blockIdx.x * threads + threadIdx.x] = total;
    if (blockIdx.x == 0 && threadIdx.x == 0) *clocks = end - begin;
  }
};

template <Word W, int Threads>
void words(const char* name) {
  constexpr int turns = 4096;
  backend::Buffer<float> out(std::vector<float>(static_cast<std::size_t>(multiprocessors) * Threads));
  backend::Buffer<long long> clocks(std::vector<long long>(1));
  best_ms(multiprocessors, Words<W, Threads>{turns, out.device(), clocks.device()});
  const double count = static_cast<double>(turns) * 16 * Threads;
  std::printf("%s, %d threads: %.2f a clock and SM\n", name, Threads, count / static_cast<double>(clocks.fetch()[0]));
}

template <int Threads, int Bytes>
struct Empty {
  static constexpr int threads = Threads;
  struct Shared {
    unsigned char bytes[Bytes];
  };
  int* out;
  __device__ void operator()(Shared& shared) const {
    if (out == nullptr) return;
    shared.bytes[threadIdx.x] = 1;
    out[0] = shared.bytes[7];
  }
};

template <int Threads, int Bytes>
void empty(int blocks) {
  using Case = Empty<Threads, Bytes>;
  const double ms = best_ms(blocks, Case{nullptr});
  std::printf("empty grid of %d blocks, %d threads, %d KB: %.1f us\n", blocks, Threads, Bytes / 1024, ms * 1e3);
}

// Launches back to back: what each costs when the next is already queued.
void launches() {
  using Case = Empty<384, 200 * 1024>;
  backend::run(multiprocessors, Case{nullptr});
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  cudaEventRecord(begin);
  for (int i = 0; i < 1000; ++i) backend::kernel<Case><<<multiprocessors, 384, 200 * 1024>>>(Case{nullptr});
  cudaEventRecord(end);
  backend::check(cudaEventSynchronize(end), "launches");
  float ms = 0;
  cudaEventElapsedTime(&ms, begin, end);
  std::printf("launch of a persistent grid behind another: %.2f us\n", ms);
}

// Boxes of 64 x 32 float32 added to a tensor [tokens][1][128]; blocks start apart, or all at the same place.
struct Adds {
  static constexpr int threads = 128;
  using Tile = SharedTile<64, 32, 4>;
  struct Shared {
    alignas(1024) unsigned char tile[4][Tile::bytes];
  };
  TensorMap map;
  int boxes, tiles, apart;
  __device__ void operator()(Shared& shared) const {
    for (int i = static_cast<int>(threadIdx.x); i < Tile::bytes; i += threads) reinterpret_cast<float*>(shared.tile)[i] = 1;
    fence_async_proxy();
    __syncthreads();
    if (threadIdx.x != 0) return;
    int tile = static_cast<int>(blockIdx.x) * apart % tiles;
    for (int i = 0; i < boxes; ++i) {
      reduce_add_box(map, shared.tile[i % 4], i % 4 * 32, 0, tile * 64);
      commit_bulk();
      wait_bulk_read<3>();
      if (i % 4 == 3 && ++tile == tiles) tile = 0;
    }
    wait_bulk<0>();
  }
};

void adds(int tiles, int apart) {
  struct Shape {
    int dim, heads, tokens, head_stride, token_stride;
  };
  const Shape shape{128, 1, tiles * 64, 128, 128};
  backend::Buffer<float> sums(std::vector<float>(static_cast<std::size_t>(tiles) * 64 * 128));
  constexpr int boxes = 4096;
  const double ms =
      best_ms(multiprocessors, Adds{backend::tensor_map<float>(sums.device(), shape, 32, 64), boxes, tiles, apart});
  std::printf("bulk reduce-add of float32, %d MB, blocks %d tiles apart: %.0f GB/s of addends\n", tiles * 32 / 1024, apart,
              static_cast<double>(boxes) * 8192 * multiprocessors / ms * 1e-6);
}

// The same addends by atomicAdd from registers: a warp writes 128 bytes, or four float32 a thread.
template <bool Vector>
struct Atomics {
  static constexpr int threads = 256;
  struct Shared {};
  float* sums;
  int turns, count, apart;  // floats
  __device__ void operator()(Shared&) const {
    constexpr int width = Vector ? 4 : 1;
    std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * apart % count;
    for (int turn = 0; turn < turns; ++turn) {
      float* to = sums + at + threadIdx.x * width;
      if constexpr (Vector) {
        asm volatile("red.global.add.v4.f32 [%0], {%1, %1, %1, %1};" ::"l"(to), "f"(1.0f) : "memory");
      } else {
        atomicAdd(to, 1.0f);
      }
      at += threads * width;
      if (at >= count) at = 0;
    }
  }
};

template <bool Vector>
void atomics(int megabytes) {
  const int count = megabytes << 18;
  backend::Buffer<float> sums(std::vector<float>(static_cast<std::size_t>(count)));
  constexpr int turns = 4096;
  const int blocks = multiprocessors * 4;
  const double ms = best_ms(blocks, Atomics<Vector>{sums.device(), turns, count, 65536});
  std::printf("atomicAdd float32%s, %d MB: %.0f GB/s of addends\n", Vector ? " x 4" : "", megabytes,
              static_cast<double>(turns) * 256 * (Vector ? 16 : 4) * blocks / ms * 1e-6);
}

// One thread a block takes numbers from one counter, waiting for each.
struct Counter {
  static constexpr int threads = 32;
  struct Shared {};
  int* counter;
  int turns;
  __device__ void operator()(Shared&) const {
    if (threadIdx.x != 0) return;
    int last = 0;
    for (int turn = 0; turn < turns; ++turn) last += atomicAdd(counter, 1 + (last >> 30));
    if (last == -7) *counter = last;
  }
};

void counter(int blocks) {
  backend::Buffer<int> value(std::vector<int>(1));
  constexpr int turns = 2000;
  const double ms = best_ms(blocks, Counter{value.device(), turns});
  std::printf("atomic counter, %d blocks: %.0f ns until a block has its number\n", blocks, ms * 1e6 / turns);
}

// Boxes of 128 x 64 bf16 (16 KB) in `stages` stages, nothing done with them.
template <int Stages>
struct Loads {
  static constexpr int threads = 32;
  using Tile = SharedTile<128, 64>;
  struct Shared {
    alignas(1024) unsigned char tile[Stages][Tile::bytes];
    Barrier full[Stages];
  };
  TensorMap map;
  int boxes, tiles;
  __device__ void operator()(Shared& shared) const {
    if (threadIdx.x != 0) return;
    for (int s = 0; s < Stages; ++s) init(shared.full[s], 1);
    fence_barrier_init();
    const auto issue = [&](int i) {
      arrive_and_expect(shared.full[i % Stages], Tile::bytes);
      const int box = (static_cast<int>(blockIdx.x) * 37 + i) % (2 * tiles);
      load_box(shared.tile[i % Stages], map, shared.full[i % Stages], box % 2 * 64, 0, box / 2 * 128);
    };
    for (int i = 0; i < Stages; ++i) issue(i);
    for (int i = 0; i < boxes; ++i) {
      wait(shared.full[i % Stages], i / Stages & 1);
      if (i + Stages < boxes) issue(i + Stages);
    }
  }
};

template <int Stages>
void loads(int tiles) {
  struct Shape {
    int dim, heads, tokens, head_stride, token_stride;
  };
  const Shape shape{128, 1, tiles * 128, 128, 128};
  backend::Buffer<std::uint16_t> data(std::vector<std::uint16_t>(static_cast<std::size_t>(tiles) * 128 * 128));
  constexpr int boxes = 4096;
  const double ms =
      best_ms(multiprocessors, Loads<Stages>{backend::tensor_map<BFloat16>(data.device(), shape, 64, 128), boxes, tiles});
  std::printf("bulk loads of 16 KB, %d in flight, %d MB: %.0f GB/s, %.0f ns a box\n", Stages, tiles * 32 / 1024,
              static_cast<double>(boxes) * 16384 * multiprocessors / ms * 1e-6, ms * 1e6 / boxes);
}

// Two warpgroups pass a token by named barriers, or by mbarriers of one arrival a warpgroup.
template <bool Named>
struct Token {
  static constexpr int threads = 256;
  struct Shared {
    Barrier mine[2];
  };
  int turns;
  long long* clocks;
  __device__ void operator()(Shared& shared) const {
    if (threadIdx.x == 0) {
      init(shared.mine[0], 128);
      init(shared.mine[1], 128);
      fence_barrier_init();
    }
    __syncthreads();
    const int group = warpgroup_index();
    const long long begin = clock64();
    if (Named && group == 1) named_arrive(1, 256);
    if (!Named && group == 1) arrive(shared.mine[0]);
    for (int turn = 0; turn < turns; ++turn) {
      if constexpr (Named) {
        named_sync(1 + group, 256);
        if (group == 0 || turn + 1 < turns) named_arrive(2 - group, 256);
      } else {
        wait(shared.mine[group], turn & 1);
        if (group == 0 || turn + 1 < turns) arrive(shared.mine[1 - group]);
      }
    }
    if (threadIdx.x == 0) *clocks = clock64() - begin;
  }
};

template <bool Named>
void token() {
  backend::Buffer<long long> clocks(std::vector<long long>(1));
  constexpr int turns = 4096;
  best_ms(1, Token<Named>{turns, clocks.device()});
  std::printf("a token handed over by %s: %.0f cycles\n", Named ? "named barriers" : "mbarriers",
              static_cast<double>(clocks.fetch()[0]) / (2.0 * turns));
}

}  // namespace

int main(int argc, char** argv) {
  return run(argc, argv,
             {
                 {"word_exp2", [] { words<Word::exp2, 256>("exp2"), words<Word::exp2, 128>("exp2"); }},
                 {"word_tanh", [] { words<Word::tanh, 256>("tanh"); }},
                 {"word_log2", [] { words<Word::log2, 256>("log2"); }},
                 {"word_pack", [] { words<Word::pack, 256>("pack of two"); }},
                 {"word_fma", [] { words<Word::fma, 256>("fma"); }},
                 {"launch_persistent", launches},
                 {"launch_empty",
                  [] { empty<384, 200 * 1024>(multiprocessors), empty<384, 200 * 1024>(32768), empty<128, 16 * 1024>(32768); }},
                 {"add_near", [] { adds(512, 4); }},
                 {"add_same", [] { adds(512, 0); }},
                 {"add_far", [] { adds(32768, 240); }},
                 {"atomic_scalar", [] { atomics<false>(16); }},
                 {"atomic_vector", [] { atomics<true>(16); }},
                 {"counter", [] { counter(1), counter(multiprocessors); }},
                 {"load_2", [] { loads<2>(512); }},
                 {"load_4", [] { loads<4>(512); }},
                 {"load_8", [] { loads<8>(512); }},
                 {"load_far", [] { loads<8>(32768); }},
                 {"token", [] { token<true>(), token<false>(); }},
             });
}
