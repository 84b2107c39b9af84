// Vectors of the accumulate type from and to the elements of a tensor: exact widening, rounding to nearest even back, as in
// number.h, and the transposition of a square of them.
#pragma once

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <utility>

#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

typedef std::uint16_t Halves __attribute__((vector_size(2 * kWidth<float>), may_alias, aligned(2)));
typedef std::uint32_t Words __attribute__((vector_size(4 * kWidth<float>), may_alias));

inline Vec<float> widen(const float* from) { return *reinterpret_cast<const Simd<float>::Loose*>(from); }
inline Vec<double> widen(const double* from) { return *reinterpret_cast<const Simd<double>::Loose*>(from); }
inline Vec<float> widen(const BFloat16* from) {
  const Words bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  return reinterpret_cast<const Vec<float>&>(bits);
}
inline Vec<float> widen(const Float16* from) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
  const Words bits = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words);
  const Words sign = (bits & 0x8000U) << 16, magnitude = bits & 0x7fffU;
  // The exponent moves from bias 15 to 127, and that of infinity and NaN to 255. Subnormals are units of 2^-24: as integers
  // they widen under any rounding and flushing mode.
  const Words normal = (magnitude << 13) + (112U << 23), special = (magnitude << 13) + (224U << 23);
  const Vec<float> units = __builtin_convertvector(reinterpret_cast<const IntVec<float>&>(magnitude), Vec<float>) * 0x1p-24F;
  Words wide = magnitude >= 0x7c00U ? special : normal;
  wide = magnitude < 0x0400U ? reinterpret_cast<const Words&>(units) : wide;
  wide |= sign;
  return reinterpret_cast<const Vec<float>&>(wide);
#endif
}

inline void narrow(Vec<float> value, float* to) { *reinterpret_cast<Simd<float>::Loose*>(to) = value; }
inline void narrow(Vec<double> value, double* to) { *reinterpret_cast<Simd<double>::Loose*>(to) = value; }
inline void narrow(Vec<float> value, BFloat16* to) {
  const Words bits = reinterpret_cast<const Words&>(value);
  const Words rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16, nan = (bits >> 16 & 0x8000U) | 0x7fc0U;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector((bits & 0x7fffffffU) > 0x7f800000U ? nan : rounded, Halves);
}
inline void narrow(Vec<float> value, Float16* to) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  const Words bits = reinterpret_cast<const Words&>(value), sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7fffffffU;
  Words half = (magnitude + 0xfffU + (magnitude >> 13 & 1U) - (112U << 23)) >> 13;
  // Below 2^-14 the fraction, with its leading one, is shifted to units of 2^-24 and rounded there; 2^-25 and less is 0.
  const Words fraction = (magnitude & 0x7fffffU) | 0x800000U, exponent = magnitude >> 23;
  const Words shift = exponent - 96U <= 16U ? 126U - exponent : Words{} + 31U;  // other lanes take another value
  const Words whole = fraction >> shift, rest = fraction - (whole << shift), middle = (Words{} + 1U) << (shift - 1U);
  const Words up = (rest > middle ? (Words{} + 1U) : Words{}) | (rest == middle ? (whole & 1U) : Words{});
  half = magnitude < 0x38800000U ? whole + up : half;
  half = magnitude < 0x33000000U ? Words{} : half;
  half = magnitude >= 0x477ff000U ? (Words{} + 0x7c00U) : half;
  half = magnitude > 0x7f800000U ? (Words{} + 0x7e00U) : half;
  *reinterpret_cast<Halves*>(to) = __builtin_convertvector(half | sign, Halves);
#endif
}

// The first `count` < kWidth elements only, the other lanes 0.
template <class T>
inline Vec<typename AccOf<T>::type> widen_some(const T* from, std::int64_t count) {
  T some[kWidth<typename AccOf<T>::type>] = {};
  for (std::int64_t i = 0; i < count; ++i) some[i] = from[i];
  return widen(some);
}
template <class T>
inline void narrow_some(Vec<typename AccOf<T>::type> value, T* to, std::int64_t count) {
  T some[kWidth<typename AccOf<T>::type>];
  narrow(value, some);
  for (std::int64_t i = 0; i < count; ++i) to[i] = some[i];
}

// Products with one number, rounded once: a float times a double has more digits than either vector type holds.
template <class Lane>
class Scale;
template <>
class Scale<double> {
 public:
  explicit Scale(double factor) : factor_(factor) {}
  Vec<double> operator()(Vec<double> value) const { return value * factor_; }

 private:
  double factor_;
};
template <>
class Scale<float> {
 public:
#if defined(__FMA__)
  // factor = high + low, of one sign and neither 0, so that an infinity stays one.
  explicit Scale(double factor) {
    auto high = static_cast<float>(factor);
    const double beyond = (static_cast<double>(high) - factor) * (factor < 0 ? -1 : 1);
    if (beyond > 0) high = __builtin_bit_cast(float, __builtin_bit_cast(std::int32_t, high) - 1);  // towards 0
    const auto low = static_cast<float>(factor - static_cast<double>(high));
    high_ = all(high), low_ = all(low == 0 ? high * 0x1p-64F : low);
  }
  Vec<float> operator()(Vec<float> value) const { return value * high_ + value * low_; }

 private:
  Vec<float> high_, low_;
#else
  explicit Scale(double factor) : factor_(factor) {}
  Vec<float> operator()(Vec<float> value) const {
    typedef double Wide __attribute__((vector_size(HETSP_VECTOR_BYTES)));
    typedef float Half __attribute__((vector_size(HETSP_VECTOR_BYTES / 2), may_alias));
    auto* halves = reinterpret_cast<Half*>(&value);
    for (int half = 0; half < 2; ++half)
      halves[half] = __builtin_convertvector(__builtin_convertvector(halves[half], Wide) * factor_, Half);
    return value;
  }

 private:
  double factor_;
#endif
};

// Lanes of the lower (upper = 0) or upper halves of a and b in turn.
template <int upper, class Lane, std::size_t... I>
inline Vec<Lane> zip(Vec<Lane> a, Vec<Lane> b, std::index_sequence<I...>) {
  constexpr int width = kWidth<Lane>;
  return __builtin_shufflevector(a, b, static_cast<int>(I / 2 + I % 2 * width) + upper * width / 2 ...);
}

// square[i][j] <-> square[j][i]. Each round of zips moves one bit of the row number into the lane number, and one out of it.
template <class Lane>
inline void transpose(Vec<Lane> (&square)[kWidth<Lane>]) {
  constexpr int width = kWidth<Lane>;
  constexpr auto lanes = std::make_index_sequence<width>();
#pragma GCC unroll 4
  for (int round = 1; round < width; round *= 2) {
    Vec<Lane> next[width];
#pragma GCC unroll 8
    for (int i = 0; i < width / 2; ++i) {
      next[2 * i] = zip<0, Lane>(square[i], square[i + width / 2], lanes);
      next[2 * i + 1] = zip<1, Lane>(square[i], square[i + width / 2], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) square[i] = next[i];
  }
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
