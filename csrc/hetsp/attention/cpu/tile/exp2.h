// 2^x and tanh on vectors.
#pragma once

#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

// 2^x = 2^n 2^f, n = round(x), |f| <= 1/2, by a relative minimax polynomial of degree 6 (2e-9, so float rounding alone
// remains). Below the normal range: 0. Above: inf. NaN stays.
inline Vec<float> exp2(Vec<float> x) {
  const Vec<float> magic = all(0x1.8p23F);
  const Vec<float> top = x > 128.0F ? all(128.0F) : x;
  const Vec<float> n = (top + magic) - magic;
  const Vec<float> f = top - n;
  Vec<float> p = all(0x1.41fbbcp-13F);
  p = p * f + 0x1.5f3e54p-10F;
  p = p * f + 0x1.3b2d4cp-7F;
  p = p * f + 0x1.c6aee8p-5F;
  p = p * f + 0x1.ebfbdcp-3F;
  p = p * f + 0x1.62e430p-1F;
  p = p * f + 1.0F;
  const IntVec<float> power = (__builtin_convertvector(n, IntVec<float>) + 127) << 23;
  const Vec<float> result = p * reinterpret_cast<Vec<float>>(power);
  return x < -126.0F ? all(0.0F) : result;
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
