// The names of csrc/hetsp/attention/cuda/fast_math.cuh on the CPU. Included by the emulators of warps.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "hetsp/attention/number.h"

namespace hetsp::attention::cuda {

inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
inline float exp2_fast(float x) { return flushed(std::exp2(flushed(x))); }

template <class Element>
std::uint32_t pack(float low, float high) {
  if constexpr (std::is_same_v<Element, BFloat16>) {
    return to_bfloat16(low).bits | static_cast<std::uint32_t>(to_bfloat16(high).bits) << 16;
  } else {
    return to_float16(low).bits | static_cast<std::uint32_t>(to_float16(high).bits) << 16;
  }
}

}  // namespace hetsp::attention::cuda
