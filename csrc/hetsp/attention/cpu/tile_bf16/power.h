// 2^x for weights that are about to be rounded to bfloat16, and columns of a masked tile.
#pragma once

#include <immintrin.h>

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

// 2^x = 2^n 2^f, n = floor(x), 0 <= f < 1, with 2^f = 1 + f q(f) of least relative error: 1 at f = 0 exactly. -inf gives 0
// (the fraction of an infinity is 0), NaN stays, what is too large or too small for a float becomes inf or 0.
//
// Degree 5: 8e-8 before rounding. Degree 3: 8.6e-5, a tenth of what rounding to bfloat16 does on average (2^-9 / sqrt(3)).
template <int degree>
[[gnu::always_inline]] inline __m512 power(__m512 x) {
  static_assert(degree == 3 || degree == 5);
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
  const auto step = [&](__m512 p, float c) { return _mm512_fmadd_ps(p, f, _mm512_set1_ps(c)); };
  __m512 p;
  if constexpr (degree == 3) {
    p = step(_mm512_set1_ps(0x1.3baaaap-4F), 0x1.d23788p-3F);
    p = step(p, 0x1.63e65ap-1F);
  } else {
    p = step(_mm512_set1_ps(0x1.e974fcp-10F), 0x1.277854p-7F);
    p = step(p, 0x1.c91ce6p-5F);
    p = step(p, 0x1.ebdb56p-3F);
    p = step(p, 0x1.62e4bap-1F);
  }
  return _mm512_scalef_ps(step(p, 1.0F), x);  // scalef takes the floor of x itself
}

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
