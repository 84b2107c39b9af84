// Runs the body of a CUDA kernel on the CPU, so that its arithmetic, its addresses and its barriers are tested without a
// GPU. Include it before the .cuh; then
//
//   cuda_on_cpu::launch<Shared>(blocks, threads, [&](Shared& shared) { body(arguments, shared); });
//
// Here are CUDA's names; block_on_cpu.h runs the blocks and says what that finds.
#pragma once

#include <atomic>
#include <bit>
#include <type_traits>

#include "support/block_on_cpu.h"

// NOLINTBEGIN(bugprone-reserved-identifier): CUDA reserved them first
#define __device__
#define __host__
#define __forceinline__ inline
#define threadIdx (*cuda_on_cpu::thread_index())
#define blockIdx (*cuda_on_cpu::block_index())
#define blockDim (*cuda_on_cpu::block_dim())
#define gridDim (*cuda_on_cpu::grid_dim())
#define __syncthreads() cuda_on_cpu::synchronise({__FILE__, __LINE__})
// NOLINTEND(bugprone-reserved-identifier)

// Device functions that the kernels use, as in CUDA: each returns the old value.
template <class T>
inline T atomicAdd(T* address, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*address).fetch_add(value);
}
inline int atomicMin(int* address, int value) {
  std::atomic_ref<int> target(*address);
  int old = target.load();
  while (value < old && !target.compare_exchange_weak(old, value)) {
  }
  return old;
}
inline int atomicMax(int* address, int value) {
  std::atomic_ref<int> target(*address);
  int old = target.load();
  while (value > old && !target.compare_exchange_weak(old, value)) {
  }
  return old;
}
inline int atomicAdd(int* address, int value) { return std::atomic_ref<int>(*address).fetch_add(value); }
inline unsigned atomicOr(unsigned* address, unsigned value) { return std::atomic_ref<unsigned>(*address).fetch_or(value); }

// Bits of a word, as in CUDA.
// NOLINTBEGIN(bugprone-reserved-identifier)
inline int __popc(unsigned value) { return std::popcount(value); }
inline int __clz(int value) { return std::countl_zero(static_cast<unsigned>(value)); }
inline int __ffs(int value) { return value == 0 ? 0 : std::countr_zero(static_cast<unsigned>(value)) + 1; }
// NOLINTEND(bugprone-reserved-identifier)
