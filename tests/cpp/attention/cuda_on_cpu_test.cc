// The emulator must find what it is there to find.
#include "support/cuda_on_cpu.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <numeric>

#include "support/check.h"

namespace {

constexpr unsigned threads = 64;

// out[b][t] = sum of the block's numbers in[b][0..t], by doubling. Without the barriers that `careful` asks for it is wrong.
struct Sums {
  unsigned value[2][threads];  // what is read too early may wrap
};
void running_sum(const int* in, int* out, bool careful, Sums& shared) {
  const unsigned t = threadIdx.x, at = blockIdx.x * threads + t;
  shared.value[0][t] = static_cast<unsigned>(in[at]);
  int from = 0;
  for (unsigned step = 1; step < threads; step *= 2, from = 1 - from) {
    if (careful) __syncthreads();
    shared.value[1 - from][t] = shared.value[from][t] + (t >= step ? shared.value[from][t - step] : 0);
  }
  out[at] = static_cast<int>(shared.value[from][t]);
}

}  // namespace

TEST(blocks_and_barriers) {
  std::vector<int> in(3 * threads), out(in.size());
  std::iota(in.begin(), in.end(), -40);
  cuda_on_cpu::launch<Sums>(3, threads, [&](Sums& shared) { running_sum(in.data(), out.data(), true, shared); });
  for (unsigned b = 0; b < 3; ++b)
    for (unsigned t = 0, sum = 0; t < threads; ++t)
      CHECK_EQ(out[b * threads + t], static_cast<int>(sum += in[b * threads + t]));
}

#if defined(__SANITIZE_THREAD__)
TEST(a_missing_barrier_is_reported_as_a_race) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    std::vector<int> in(threads, 1), out(threads);
    cuda_on_cpu::launch<Sums>(1, threads, [&](Sums& shared) { running_sum(in.data(), out.data(), false, shared); });
    std::exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 66);  // ThreadSanitizer's exit code after a report
}
#else
TEST(a_missing_barrier_gives_wrong_numbers) {
  std::vector<int> in(threads, 1), out(threads);
  cuda_on_cpu::launch<Sums>(1, threads, [&](Sums& shared) { running_sum(in.data(), out.data(), false, shared); });
  int right = 0;
  for (unsigned t = 0; t < threads; ++t) right += out[t] == static_cast<int>(t + 1);
  CHECK(right < static_cast<int>(threads));
}
#endif

TEST(an_early_return_does_not_hang) {
  std::vector<int> out(threads, 0);
  cuda_on_cpu::launch<int>(2, threads, [&](int& shared) {
    if (threadIdx.x % 3 == 0) return;
    if (threadIdx.x == 1) shared = 7 + static_cast<int>(blockIdx.x);
    __syncthreads();
    out[threadIdx.x] += shared;
  });
  for (unsigned t = 0; t < threads; ++t) CHECK_EQ(out[t], t % 3 == 0 ? 0 : 15);
}

TEST(divergent_barriers_are_named) {
  CHECK_THROWS(cuda_on_cpu::BrokenBarrier, "block 1: thread 0 waits at", cuda_on_cpu::launch<int>(2, threads, [&](int&) {
                 if (blockIdx.x == 1 && threadIdx.x == 9) {
                   __syncthreads();
                 } else {
                   __syncthreads();
                 }
               }));
  std::vector<int> in(threads, 1), out(threads);  // and the emulator is usable afterwards
  cuda_on_cpu::launch<Sums>(1, threads, [&](Sums& shared) { running_sum(in.data(), out.data(), true, shared); });
  CHECK_EQ(out[threads - 1], static_cast<int>(threads));
}

TEST(shared_memory_is_fresh_and_nan) {
  cuda_on_cpu::launch<float[4]>(2, 4, [&](float (&shared)[4]) {
    CHECK(std::isnan(shared[threadIdx.x]));
    shared[threadIdx.x] = 1;
  });
}

TEST(atomics_commute) {
  int least = 100, most = -100;
  cuda_on_cpu::launch<int>(3, threads, [&](int&) {
    atomicMin(&least, static_cast<int>(threadIdx.x * 7 % threads));
    atomicMax(&most, static_cast<int>(threadIdx.x * 7 % threads));
  });
  CHECK_EQ(least, 0);
  CHECK_EQ(most, 63);
}

TEST_MAIN()
