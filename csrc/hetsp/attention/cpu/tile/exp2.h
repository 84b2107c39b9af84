// 2^x and tanh on vectors.
#pragma once

#if defined(__AVX512DQ__)
#include <immintrin.h>
#endif

#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

// 2^f, |f| <= 1/2, by a relative minimax polynomial of degree 6: 2e-9, so that float rounding alone remains.
inline Vec<float> two_to(Vec<float> f) {
  Vec<float> p = all(0x1.41fbbcp-13F);
  p = p * f + 0x1.5f3e54p-10F;
  p = p * f + 0x1.3b2d4cp-7F;
  p = p * f + 0x1.c6aee8p-5F;
  p = p * f + 0x1.ebfbdcp-3F;
  p = p * f + 0x1.62e430p-1F;
  p = p * f + 1.0F;
  return p;
}

// 2^x = 2^n 2^f, n = round(x). Below the normal range: 0. Above: inf. NaN stays.
inline Vec<float> exp2(Vec<float> x) {
#if defined(__AVX512DQ__)
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);  // 0 of an infinity
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0F), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(normal, two_to(f), x - f);
#else
  const Vec<float> magic = all(0x1.8p23F);
  const Vec<float> top = x > 128.0F ? all(128.0F) : x;
  const Vec<float> n = (top + magic) - magic;
  const Vec<float> f = top - n;
  const IntVec<float> power = (__builtin_convertvector(n, IntVec<float>) + 127) << 23;
  const Vec<float> result = two_to(f) * reinterpret_cast<Vec<float> >(power);
  return x < -126.0F ? all(0.0F) : result;
#endif
}
inline Vec<double> exp2(Vec<double> x) {  // the oracle's type: full precision before speed
  for (int lane = 0; lane < kWidth<double>; ++lane) x[lane] = __builtin_exp2(x[lane]);
  return x;
}

// Odd minimax polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel; (1 - e^-2|x|) / (1 + e^-2|x|) elsewhere.
inline Vec<float> tanh(Vec<float> x) {
  const Vec<float> z = x * x, magnitude = x < 0.0F ? -x : x;
  Vec<float> p = all(0.002226970568017932F);
  p = p * z - 0.008262741246941947F;
  p = p * z + 0.021732719857320785F;
  p = p * z - 0.05395216673172149F;
  p = p * z + 0.13333245369532562F;
  p = p * z - 0.3333333172074787F;
  const Vec<float> near = x + x * z * p;
  const Vec<float> e = exp2(magnitude * -2.8853900817779268F);
  const Vec<float> away = (1.0F - e) / (1.0F + e);
  return magnitude < 0.55F ? near : (x < 0.0F ? -away : away);
}
inline Vec<double> tanh(Vec<double> x) {
  for (int lane = 0; lane < kWidth<double>; ++lane) x[lane] = __builtin_tanh(x[lane]);
  return x;
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
