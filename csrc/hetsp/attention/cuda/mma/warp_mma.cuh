// What a warp does together on any GPU from Ampere on: matrix products, loads of their operands, asynchronous copies.
//
// mma<Element> is D (16 x 8, float32) += A (16 x 16) B (16 x 8). With g = lane / 4 and t = lane mod 4 a lane holds
//
//   d[2 h + e]    row g + 8 h, column 2 t + e
//   a[2 c + h]    row g + 8 h, columns 8 c + 2 t and + 1, packed
//   b[c]          rows 8 c + 2 t and + 1, column g, packed
//
// so that two neighbouring D, rounded and packed, are the A of the next product. Instructions are those of the PTX ISA for
// sm_80. On the host the same names come from tests/cpp/support/mma_on_cpu.h, which is included before.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/fast_math.cuh"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda::mma {

// An address in shared memory: 32 bits, in which offsets are added and bits are exchanged.
using SharedAddress = std::uint32_t;
__device__ inline SharedAddress shared_address(const void* pointer) {
  return static_cast<SharedAddress>(__cvta_generic_to_shared(pointer));
}

// All lanes of a converged warp call these.

// Four 8 x 8 matrices of 16-bit numbers: lane l gives the address of row l mod 8 (16 bytes, aligned) of matrix l / 8, and
// receives in r[m] elements 2 t and 2 t + 1 of row g of matrix m; `transposed` of column g.
__device__ inline void load_matrices(std::uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], SharedAddress row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

template <class Element>
__device__ inline void multiply(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1);
template <>
__device__ inline void multiply<BFloat16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <>
__device__ inline void multiply<Float16>(float (&d)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// After a branch that only some lanes took.
__device__ inline void converge() { __syncwarp(); }

__device__ inline bool any(bool flag) { return __any_sync(0xffffffffu, flag) != 0; }

// A value that is the same in all lanes, and known to be: the compiler may branch on it without masks.
__device__ inline int uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

__device__ inline float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

// The rest is each thread's own.

// 16 bytes to shared memory, of which the first `bytes` (0 to 16) are read and the others are 0; all aligned to 16.
__device__ inline void copy_16(SharedAddress shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}
// 4 bytes, or 0 where `bytes` is 0.
__device__ inline void copy_4(SharedAddress shared, const void* global, int bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(global), "r"(bytes) : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most N committed groups of the calling thread are under way; a barrier tells the others.
template <int N>
__device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

__device__ inline float divide_fast(float a, float b) { return __fdividef(a, b); }

}  // namespace hetsp::attention::cuda::mma

#endif  // __CUDACC__
