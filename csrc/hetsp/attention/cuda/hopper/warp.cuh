// What a thread of a Hopper kernel says to its warp, its warpgroup (4 warps, 128 threads) and the memory proxies.
//
// On the host the same names come from tests/cpp/support/hopper_on_cpu.h, which is included before. Instructions are those of
// the PTX ISA 8.x for sm_90a.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/fast_math.cuh"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda::hopper {

constexpr int warpgroup_threads = 128;

// Uniform over the warp, and known to be: the compiler may branch on it without a mask.
__device__ inline int warp_index() { return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 32, 0); }
__device__ inline int warpgroup_index() {
  return __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / warpgroup_threads, 0);
}
__device__ inline int lane_index() { return static_cast<int>(threadIdx.x) % 32; }

// True in one lane of a converged warp.
__device__ inline bool elect_one() {
  std::uint32_t elected = 0;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(elected));
  return elected != 0;
}

// Registers per thread of the calling warpgroup, a multiple of 8; all of its threads call. The kernel needs a launch bound.
template <int N>
__device__ inline void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
__device__ inline void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

// Named barriers 1 to 15 (0 is __syncthreads). `threads` counts those that sync and those that only arrive; whole warps.
__device__ inline void named_sync(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ inline void named_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// After ordinary stores to shared memory and before the barrier behind which wgmma or TMA reads them.
__device__ inline void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// After an acquiring load of a flag, before TMA reads what was written ahead of the flag.
__device__ inline void fence_global_to_async() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// The cache line of 128 bytes that holds the address will be read: to L2.
__device__ inline void prefetch_line(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// Four 8 x 8 matrices of 16-bit numbers to shared memory: lane l brings the place of row l mod 8 of matrix l / 8, 16 bytes, and
// in tile[m] columns 2 (l mod 4) and + 1 of row l / 4 of matrix m.
__device__ inline void store_matrices(void* row, const std::uint32_t (&tile)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(row)), "r"(tile[0]),
               "r"(tile[1]), "r"(tile[2]), "r"(tile[3])
               : "memory");
}

template <class T>
__device__ inline T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
__device__ inline T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// One instruction each, as those of fast_math.cuh. log2_fast: subnormal numbers are 0; tanh_fast: relative error 2^-11.
__device__ inline float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float tanh_fast(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace hetsp::attention::cuda::hopper

#endif  // __CUDACC__
