// The emulator of Hopper's primitives must find what it is there to find. What it computes is tested in
// hopper_primitives_test.cc.
#include "support/hopper_on_cpu.h"
// The emulator's names must be known before the primitives.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "support/check.h"

using namespace hetsp::attention::cuda::hopper;
using cuda_on_cpu::BrokenKernel;
using cuda_on_cpu::Deadlock;
using cuda_on_cpu::launch_hopper;
using hetsp::attention::BFloat16;

namespace {

using Tile = SharedTile<64, 64>;
struct Shared {
  alignas(1024) unsigned char tile[Tile::bytes];
  Barrier barrier, other;
  int word;
};

int thread() { return static_cast<int>(threadIdx.x); }

void fill(Shared& shared, float value) {
  for (int i = thread(); i < 64 * 64; i += 128)
    *reinterpret_cast<BFloat16*>(shared.tile + Tile::offset(i / 64, i % 64)) = hetsp::attention::to_bfloat16(value);
}

// One k-step of the tile with itself: 16 where all elements are 1.
void square(Shared& shared, float (&d)[32]) {
  mma_ss<BFloat16, 64>(d, Tile::k_major(shared.tile, 0, 0), Tile::k_major(shared.tile, 0, 16), false);
}

void init_barriers(Shared& shared, int arrivals) {
  if (thread() == 0) {
    init(shared.barrier, arrivals);
    init(shared.other, 1);
    fence_barrier_init();
  }
  __syncthreads();
}

struct Flaws {
  bool no_fence = false, no_wait = false, early_store = false, other_descriptor = false, far_descriptor = false,
       never_waited = false;
};

// Thread 100's first register of the square of a tile of ones.
float square_of_ones(const Flaws& flaws, unsigned seed = 0) {
  float result = -1;
  launch_hopper<Shared>(1, 128,
                        [&](Shared& shared) {
                          fill(shared, 1);
                          if (!flaws.no_fence) fence_async_proxy();
                          __syncthreads();
                          float d[32] = {};
                          mma_fence();
                          if (flaws.other_descriptor && thread() == 77) {
                            mma_ss<BFloat16, 64>(d, Tile::k_major(shared.tile, 8, 0), Tile::k_major(shared.tile, 0, 16), false);
                          } else if (flaws.far_descriptor) {
                            mma_ss<BFloat16, 64>(d, Tile::k_major(shared.tile, 56, 0), Tile::k_major(shared.tile, 0, 16),
                                                 false);
                          } else {
                            square(shared, d);
                          }
                          mma_commit();
                          if (flaws.never_waited) return;
                          const float early = d[0];
                          if (flaws.early_store) {
                            fill(shared, 2);
                            fence_async_proxy();
                            __syncthreads();
                          }
                          mma_wait<0>();
                          if (thread() == 100) result = flaws.no_wait ? early : d[0];
                        },
                        {.seed = seed});
  return result;
}

TensorMap map_of(std::vector<float>& data) {
  return cuda_on_cpu::tensor_map(data.data(), 4, true, {32, 1, 64}, {128, 128}, {32, 1, 64});
}

}  // namespace

TEST(a_right_kernel_is_right) { CHECK_EQ(square_of_ones({}), 16.0f); }
TEST(a_forgotten_fence_reads_what_was_there_before) { CHECK(std::isnan(square_of_ones({.no_fence = true}))); }
TEST(registers_are_nan_until_the_wait) { CHECK(std::isnan(square_of_ones({.no_wait = true}))); }
#if defined(__SANITIZE_THREAD__)
TEST(an_operand_that_is_overwritten_too_early_is_reported_as_a_race) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    square_of_ones({.early_store = true});
    std::exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 66);  // ThreadSanitizer's exit code after a report
}
#else
TEST(an_operand_that_is_overwritten_too_early_is_read_late) { CHECK_EQ(square_of_ones({.early_store = true}), 64.0f); }
#endif
TEST(threads_of_a_warpgroup_issue_the_same_product) {
  CHECK_THROWS(BrokenKernel, "issue different products", square_of_ones({.other_descriptor = true}));
}
TEST(an_operand_outside_shared_memory_is_an_error) {
  CHECK_THROWS(BrokenKernel, "outside shared memory", square_of_ones({.far_descriptor = true}));
}
TEST(a_product_is_waited_for) { CHECK_THROWS(BrokenKernel, "was waited for", square_of_ones({.never_waited = true})); }

TEST(a_load_lands_late_or_at_once) {
  std::vector<float> data(64 * 32, 3.0f);
  for (const unsigned seed : {0u, 1u}) {
    float early = 0, late = 0;
    launch_hopper<Shared>(1, 32,
                          [&](Shared& shared) {
                            init_barriers(shared, 1);
                            if (thread() == 0) {
                              arrive_and_expect(shared.barrier, 64 * 128);
                              load_box(shared.tile, map_of(data), shared.barrier, 0, 0, 0);
                              early = *reinterpret_cast<float*>(shared.tile);
                              wait(shared.barrier, 0);
                              late = *reinterpret_cast<float*>(shared.tile);
                            }
                          },
                          {.seed = seed});
    CHECK_EQ(std::isnan(early), seed == 0);
    CHECK_EQ(late, 3.0f);
  }
}

TEST(a_load_is_waited_for) {
  std::vector<float> data(64 * 32, 3.0f);
  CHECK_THROWS(BrokenKernel, "had arrived", launch_hopper<Shared>(1, 32, [&](Shared& shared) {
                 init_barriers(shared, 1);
                 if (thread() != 0) return;
                 arrive_and_expect(shared.barrier, 64 * 128);
                 load_box(shared.tile, map_of(data), shared.barrier, 0, 0, 0);
               }));
}

TEST(a_reduction_is_read_before_the_block_ends) {
  std::vector<float> data(64 * 32, 3.0f);
  const auto run = [&](bool waits) {
    launch_hopper<Shared>(1, 32, [&](Shared& shared) {
      for (int i = thread(); i < 64 * 32; i += 32) reinterpret_cast<float*>(shared.tile)[i] = 1;
      fence_async_proxy();
      __syncthreads();
      if (thread() != 0) return;
      reduce_add_box(map_of(data), shared.tile, 0, 0, 0);
      commit_bulk();
      if (waits) wait_bulk_read<0>();
    });
  };
  CHECK_THROWS(BrokenKernel, "wait_bulk_read", run(false));
  run(true);
  CHECK_EQ(data[77], 4.0f);
}

TEST(who_waits_for_a_barrier_is_named) {
  CHECK_THROWS(Deadlock, "threads 64-127 of block 0: mbarrier at 8192, parity 0, 1 of 3 arrivals and 8192 bytes missing",
               launch_hopper<Shared>(1, 128, [&](Shared& shared) {
                 init_barriers(shared, 3);
                 if (thread() == 0) arrive_and_expect(shared.barrier, 8192);
                 if (thread() == 1) arrive(shared.barrier);
                 if (thread() >= 64) wait(shared.barrier, 0);
               }));
  CHECK_THROWS(Deadlock, "threads 0-31 of block 0: named barrier 3, 32 of 64 arrived",
               launch_hopper<Shared>(1, 64, [&](Shared&) {
                 if (thread() < 32) named_sync(3, 64);
               }));
}

TEST(misused_barriers_are_errors) {
  const auto run = [](auto body) { launch_hopper<Shared>(1, 64, body); };
  CHECK_THROWS(BrokenKernel, "not initialised", run([](Shared& shared) { wait(shared.barrier, 1); }));
  CHECK_THROWS(BrokenKernel, "an arrival too many", run([](Shared& shared) {
                 init_barriers(shared, 1);
                 if (thread() == 0) arrive_and_expect(shared.barrier, 16), arrive(shared.barrier);
               }));
  CHECK_THROWS(BrokenKernel, "others said 64", run([](Shared&) { named_arrive(1, thread() < 32 ? 64 : 96); }));
  CHECK_THROWS(BrokenKernel, "named barrier 0", run([](Shared&) { named_sync(0, 64); }));
}

TEST(lanes_that_diverge_are_named) {
  CHECK_THROWS(BrokenKernel, "lanes diverge", launch_hopper<Shared>(1, 32, [](Shared&) {
                 if (thread() < 7) {
                   __syncwarp();
                 } else {
                   shuffle(1, 0);
                 }
               }));
  CHECK_THROWS(Deadlock, "threads 0-6 of block 0: __syncwarp", launch_hopper<Shared>(1, 32, [](Shared&) {
                 if (thread() < 7) __syncwarp();
               }));
}

TEST(registers_come_from_one_pool) {
  const auto run = [](bool lowers) {
    launch_hopper<Shared>(1, 384, [&](Shared&) {
      if (warpgroup_index() > 0) {
        raise_registers<240>();
      } else if (lowers) {
        lower_registers<24>();
      }
    });
  };
  run(true);
  CHECK_THROWS(Deadlock, "240 registers", run(false));
}

// Block 0 waits for a number that block 1 writes.
TEST(blocks_that_wait_for_each_other_run_together) {
  const auto run = [](unsigned together, unsigned seed) {
    int written = 0;
    launch_hopper<Shared>(2, 32,
                          [&](Shared&) {
                            if (blockIdx.x == 1) {
                              atomicAdd(&written, 1);
                            } else {
                              while (std::atomic_ref<int>(written).load() < 32) __nanosleep(20);
                            }
                          },
                          {.together = together, .seed = seed});
  };
  for (const unsigned seed : {0u, 1u, 2u, 3u}) run(2, seed);
  CHECK_THROWS(Deadlock, "polling", run(1, 0));
}

// Copies land while nobody does anything but look. A warp that votes on what it sees does nothing else.
TEST(a_warp_that_looks_together_lets_a_load_land) {
  std::vector<float> data(64 * 32, 3.0f);
  for (const unsigned seed : {0u, 1u, 2u, 3u}) {
    int landed = 0;
    launch_hopper<Shared>(1, 64,
                          [&](Shared& shared) {
                            init_barriers(shared, 1);
                            if (thread() < 32) {
                              while (__any_sync(~0u, std::atomic_ref<int>(landed).load() == 0)) __nanosleep(20);
                            } else if (thread() == 32) {
                              arrive_and_expect(shared.barrier, 64 * 128);
                              load_box(shared.tile, map_of(data), shared.barrier, 0, 0, 0);
                              wait(shared.barrier, 0);
                              atomicAdd(&landed, 1);
                            }
                          },
                          {.seed = seed});
    CHECK_EQ(landed, 1);
  }
}

TEST_MAIN()
