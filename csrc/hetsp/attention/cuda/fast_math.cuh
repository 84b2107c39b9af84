// Arithmetic of one instruction each, for all kernels on tensor cores. On the host the same names come from
// tests/cpp/support/fast_math_on_cpu.h.
#pragma once

#include <cstdint>

#include "hetsp/attention/number.h"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda {

// exp2_fast(-inf) = 0; a subnormal result is 0; relative error 2^-22.
__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two 16-bit numbers, rounded to nearest even, `low` in the low half: the smaller address.
template <class Element>
__device__ inline std::uint32_t pack(float low, float high);
template <>
__device__ inline std::uint32_t pack<BFloat16>(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}
template <>
__device__ inline std::uint32_t pack<Float16>(float low, float high) {
  std::uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

}  // namespace hetsp::attention::cuda

#endif  // __CUDACC__
