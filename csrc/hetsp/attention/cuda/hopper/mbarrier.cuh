// Barriers in shared memory that count arrivals of threads and bytes of asynchronous copies. A phase completes when all
// expected arrivals have come and no expected byte is missing; phases have parity 0, 1, 0, ... A pipeline of S stages has a
// `full` and an `empty` barrier per stage: the consumer waits on full with the parity of its turn, the producer on empty with
// the opposite one, so that its first turn passes at once.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/warp.cuh"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda::hopper {

struct alignas(8) Barrier {
  std::uint64_t word;
};

// By one thread; then fence_barrier_init() by it and __syncthreads() by all, before the first use.
__device__ inline void init(Barrier& barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}
__device__ inline void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

__device__ inline void arrive(Barrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

// Arrives, and makes the phase wait for `bytes` more.
__device__ inline void arrive_and_expect(Barrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

// Until the phase of this parity has completed. On a fresh barrier wait(1) returns at once and wait(0) waits for the first.
// ptxas knows this loop: with one more instruction in it (a clock, a trap) it runs all products of the kernel one by one
// (C7520).
__device__ inline void wait(Barrier& barrier, unsigned parity) {
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra DONE;\nbra "
      "AGAIN;\nDONE:\n}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace hetsp::attention::cuda::hopper

#endif  // __CUDACC__
