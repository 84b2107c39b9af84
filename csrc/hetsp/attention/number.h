// The 16-bit floating-point numbers of q, k and v as their bits, and their conversions, the same on every device: exact
// towards float, rounded to nearest even from it. Subnormals are kept; every NaN becomes the quiet one; overflow is inf.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

namespace hetsp::attention {

struct BFloat16 {
  std::uint16_t bits;  // 1 sign, 8 exponent, 7 fraction: the upper half of a float
};
struct Float16 {
  std::uint16_t bits;  // IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction
};

constexpr float to_float(BFloat16 number) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(number.bits) << 16); }

constexpr float to_float(Float16 number) {
  const std::uint32_t sign = (number.bits & 0x8000u) << 16, exponent = number.bits >> 10 & 0x1fu,
                      fraction = number.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: fraction units of 2^-24, an exact product
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const std::uint32_t wide = exponent == 31 ? 0xffu : exponent + 112;
  return __builtin_bit_cast(float, sign | wide << 23 | fraction << 13);
}

constexpr BFloat16 to_bfloat16(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((bits >> 16 & 0x8000u) | 0x7fc0u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

constexpr Float16 to_float16(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value), sign = bits >> 16 & 0x8000u,
                      magnitude = bits & 0x7fffffffu;
  std::uint32_t result = 0;
  if (magnitude > 0x7f800000u) {
    result = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520, halfway from the largest number to the next power of two
    result = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // 2^-14, the least normal number
    result = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  } else if (magnitude >= 0x33000000u) {  // 2^-25 and less rounds to zero
    const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u, shift = 126 - (magnitude >> 23);
    const std::uint32_t rest = fraction & ((1u << shift) - 1), half = 1u << (shift - 1);
    result = fraction >> shift;
    if (rest > half || (rest == half && (result & 1u) != 0)) ++result;
  }
  return {static_cast<std::uint16_t>(sign | result)};
}

}  // namespace hetsp::attention
