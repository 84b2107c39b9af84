// Two bfloat16 numbers in a 32-bit word.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

using Word = std::uint32_t;  // the number of even index in the low half

constexpr std::int64_t kWords = 16;  // in a vector

// Of the pair, in float.
inline float number(Word pair, std::int64_t odd) {
  return __builtin_bit_cast(float, odd != 0 ? pair & 0xffff0000U : pair << 16);
}

// 16 + 16 numbers, rounded to nearest even. A subnormal number becomes 0.
[[gnu::always_inline]] inline __m512i rounded(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Pairs (x[i], x[16 + i]).
[[gnu::always_inline]] inline __m512i interleaved(__m512i x) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,  //
                                         23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, x);
}

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
