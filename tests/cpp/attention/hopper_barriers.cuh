// Cases of mbarrier.cuh, of the named barriers, and of blocks that share a counter.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "attention/hopper_copies.cuh"
#include "attention/hopper_products.cuh"

namespace hopper_primitives {

// A warpgroup hands the other a number 50 times through a `full` and an `empty` barrier of 128 arrivals each.
struct Handover {
  static constexpr int threads = 256, turns = 50;
  struct Shared {
    Barrier full, empty, fresh;
    int value[128];
  };
  int* out;  // [blocks][turns][128]

  __device__ void operator()(Shared& shared) const {
    const int local = static_cast<int>(threadIdx.x) % 128;
    if (threadIdx.x == 0) {
      init(shared.full, 128);
      init(shared.empty, 128);
      init(shared.fresh, 1);
      fence_barrier_init();
    }
    __syncthreads();
    wait(shared.fresh, 1);  // returns at once
    if (warpgroup_index() == 0) {
      for (int turn = 0; turn < turns; ++turn) {
        wait(shared.empty, (turn & 1) ^ 1);
        shared.value[local] = turn * 1000 + local;
        arrive(shared.full);
      }
    } else {
      for (int turn = 0; turn < turns; ++turn) {
        wait(shared.full, turn & 1);
        out[(static_cast<int>(blockIdx.x) * turns + turn) * 128 + local] = shared.value[(local + 37) % 128];
        arrive(shared.empty);
      }
    }
  }
};

inline std::string handover() {
  std::vector<float> wanted;
  constexpr int blocks = 2;
  for (int turn = 0; turn < blocks * Handover::turns; ++turn)
    for (int local = 0; local < 128; ++local)
      wanted.push_back(static_cast<float>(turn % Handover::turns * 1000 + (local + 37) % 128));
  backend::Buffer<int> out(std::vector<int>(wanted.size(), -1));
  backend::run(blocks, Handover{out.device()});
  const std::vector<int> got = out.fetch();
  return compare("value", std::vector<float>(got.begin(), got.end()), wanted);
}

// One producer warp, two consumer warpgroups, two stages, as the kernels have it: d[block] = sum over its tiles of A_tile B.
struct Pipeline {
  static constexpr int threads = 384, stages = 2, rows = 128, depth = 64, N = 64;
  using TileA = SharedTile<rows, depth>;
  using TileB = SharedTile<depth, N>;
  struct Shared {
    alignas(1024) unsigned char a[stages][TileA::bytes];
    alignas(1024) unsigned char b[TileB::bytes];
    Barrier full[stages], empty[stages], loaded;
  };
  TensorMap a, b;  // [tokens][1][depth], [depth][1][N]
  int tiles;  // of each block
  float* d;  // [blocks][rows][N]

  __device__ void operator()(Shared& shared) const {
    if (threadIdx.x == 0) {
      for (int s = 0; s < stages; ++s) init(shared.full[s], 1), init(shared.empty[s], 2);
      init(shared.loaded, 1);
      fence_barrier_init();
    }
    __syncthreads();
    const int group = warpgroup_index();
    if (group == 0) {
      lower_registers<24>();
      if (warp_index() == 0 && elect_one()) {
        arrive_and_expect(shared.loaded, TileB::bytes);
        load_box(shared.b, b, shared.loaded, 0, 0, 0);
        for (int tile = 0; tile < tiles; ++tile) {
          const int stage = tile % stages;
          wait(shared.empty[stage], (tile / stages & 1) ^ 1);
          arrive_and_expect(shared.full[stage], TileA::bytes);
          load_box(shared.a[stage], a, shared.full[stage], 0, 0, (static_cast<int>(blockIdx.x) * tiles + tile) * rows);
        }
      }
    } else {
      raise_registers<240>();
      const int first = (group - 1) * 64, local = static_cast<int>(threadIdx.x) % 128;
      float sum[N / 2];
#pragma unroll
      for (int r = 0; r < N / 2; ++r) sum[r] = 0;
      wait(shared.loaded, 0);
      for (int tile = 0; tile < tiles; ++tile) {
        const int stage = tile % stages;
        wait(shared.full[stage], tile / stages & 1);
        hold(sum);
        mma_fence();
#pragma unroll
        for (int k = 0; k < depth; k += 16)
          mma_ss<BFloat16, N, false, true>(sum, TileA::k_major(shared.a[stage], first, k), TileB::mn_major(shared.b, k, 0),
                                           true);
        mma_commit();
        mma_wait<0>();
        hold(sum);
        if (local == 0) arrive(shared.empty[stage]);
      }
      float* out = d + (static_cast<int>(blockIdx.x) * rows + first) * N;
#pragma unroll
      for (int r = 0; r < N / 2; ++r) out[accumulator_row(local, r) * N + accumulator_column(local, r)] = sum[r];
    }
  }
};

inline std::string pipeline() {
  constexpr int blocks = 5, tiles = 17, rows = Pipeline::rows, depth = Pipeline::depth, N = Pipeline::N;
  const int tokens = blocks * tiles * rows - 100;  // the last tile of the last block ends early
  const std::vector<float> a = integers(static_cast<std::size_t>(tokens) * depth, 8, 4), b = integers(depth * N, 9, 4);
  std::vector<std::uint16_t> a16, b16;
  for (const float value : a) a16.push_back(round_to<BFloat16>(value));
  for (const float value : b) b16.push_back(round_to<BFloat16>(value));
  std::vector<float> wanted(static_cast<std::size_t>(blocks) * rows * N, 0.0f);
  for (int t = 0; t < tokens; ++t)
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < N; ++n)
        wanted[(static_cast<std::size_t>(t / (tiles * rows)) * rows + t % rows) * N + n] += a[t * depth + k] * b[k * N + n];
  backend::Buffer<std::uint16_t> da(a16), db(b16);
  backend::Buffer<float> out(std::vector<float>(wanted.size(), -1.0f));
  const Tensor ta{depth, 1, tokens, depth, depth}, tb{N, 1, depth, N, N};
  backend::run(blocks, Pipeline{backend::tensor_map<BFloat16>(da.device(), ta, depth, rows),
                                backend::tensor_map<BFloat16>(db.device(), tb, N, depth), tiles, out.device()});
  return compare("d", out.fetch(), wanted);
}

// Two warpgroups take turns by named barriers; each writes its name down, unprotected but for them.
struct TakeTurns {
  static constexpr int threads = 256, turns = 40;
  struct Shared {
    int next, log[2 * turns];
  };
  int* out;

  __device__ void operator()(Shared& shared) const {
    const int group = warpgroup_index(), local = static_cast<int>(threadIdx.x) % 128;
    if (threadIdx.x == 0) shared.next = 0;
    __syncthreads();
    if (group == 1) named_arrive(1, 256);  // group 0 begins
    for (int turn = 0; turn < turns; ++turn) {
      named_sync(1 + group, 256);
      if (local == 77) shared.log[shared.next++] = group;
      named_sync(3 + group, 128);  // its own: the entry is written before the token goes on
      if (group == 0 || turn + 1 < turns) named_arrive(2 - group, 256);
    }
    __syncthreads();
    if (threadIdx.x < 2 * turns) out[threadIdx.x] = shared.log[threadIdx.x];
  }
};

inline std::string take_turns() {
  std::vector<float> wanted;
  for (int i = 0; i < 2 * TakeTurns::turns; ++i) wanted.push_back(static_cast<float>(i % 2));
  backend::Buffer<int> out(std::vector<int>(wanted.size(), -1));
  backend::run(1, TakeTurns{out.device()});
  const std::vector<int> got = out.fetch();
  return compare("log", std::vector<float>(got.begin(), got.end()), wanted);
}

// Blocks share items through one counter: each is taken exactly once.
struct Counter {
  static constexpr int threads = 64;
  struct Shared {
    int item;
  };
  int *counter, *taken;
  int items;
  __device__ void operator()(Shared& shared) const {
    for (;;) {
      if (threadIdx.x == 0) shared.item = atomicAdd(counter, 1);
      __syncthreads();
      const int item = shared.item;
      __syncthreads();
      if (item >= items) return;
      if (threadIdx.x == 1) taken[item] += 1;
    }
  }
};

inline std::string counter() {
  constexpr int items = 1000;
  backend::Buffer<int> next(std::vector<int>(1, 0)), taken(std::vector<int>(items, 0));
  backend::run(9, Counter{next.device(), taken.device(), items});
  const std::vector<int> got = taken.fetch();
  return compare("taken", std::vector<float>(got.begin(), got.end()), std::vector<float>(items, 1.0f));
}

}  // namespace hopper_primitives
