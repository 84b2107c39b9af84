#include "hetsp/attention/number.h"

#include <cmath>
#include <limits>
#include <random>
#include <string>

#include "support/check.h"

using namespace hetsp::attention;

namespace {

// Nearest number with `digits` bits of fraction and least exponent `least`, ties to even, by the C library's arithmetic.
double rounded(double value, int digits, int least) {
  if (value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int unit = std::max(exponent - 1, least) - digits;
  return std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
}

}  // namespace

TEST(every_pattern_survives_the_round_trip) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    check::context() = "bits " + std::to_string(bits);
    const auto pattern = static_cast<std::uint16_t>(bits);
    const float brain = to_float(BFloat16{pattern}), half = to_float(Float16{pattern});
    if (!std::isnan(brain)) CHECK_EQ(to_bfloat16(brain).bits, pattern);
    if (!std::isnan(half)) CHECK_EQ(to_float16(half).bits, pattern);
    CHECK_EQ(std::isnan(brain), (pattern & 0x7fff) > 0x7f80);
    CHECK_EQ(std::isnan(half), (pattern & 0x7fff) > 0x7c00);
    if (std::isnan(brain)) CHECK(std::isnan(to_float(to_bfloat16(brain))));
    if (std::isnan(half)) CHECK(std::isnan(to_float(to_float16(half))));
  }
}

TEST(rounds_to_nearest_even) {
  std::mt19937 random(11);
  for (int round = 0; round < 200000; ++round) {
    check::context() = "round " + std::to_string(round) + " of seed 11";
    std::uint32_t bits = static_cast<std::uint32_t>(random());
    if (round % 3 == 0) bits = (bits & 0x8fffffff) | 0x30000000;                // near the range of float16
    if (round % 5 == 0) bits = (bits & 0xffffe000) | (round % 2 ? 0x1000 : 0);  // ties of float16
    if (round % 7 == 0) bits = (bits & 0xffff0000) | 0x8000;                    // ties of bfloat16
    const float value = __builtin_bit_cast(float, bits);
    if (std::isnan(value) || std::isinf(value)) continue;
    const double half = rounded(value, 10, -14), brain = rounded(value, 7, -126);
    const double infinity = std::copysign(std::numeric_limits<double>::infinity(), value);
    CHECK_EQ(static_cast<double>(to_float(to_float16(value))), std::abs(half) > 65504 ? infinity : half);
    CHECK_EQ(static_cast<double>(to_float(to_bfloat16(value))), std::abs(brain) > 0x1.fep127 ? infinity : brain);
  }
}

TEST(special_values) {
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_EQ(to_float16(infinity).bits, 0x7c00);
  CHECK_EQ(to_bfloat16(-infinity).bits, 0xff80);
  CHECK_EQ(to_float16(-0.0f).bits, 0x8000);
  CHECK_EQ(to_float16(65519.0f).bits, 0x7bff);
  CHECK_EQ(to_float16(65520.0f).bits, 0x7c00);
  CHECK_EQ(to_float16(0x1p-25f).bits, 0);
  CHECK_EQ(to_float16(0x1.8p-25f).bits, 1);
  CHECK(std::signbit(to_float(Float16{0x8001})));
}

TEST_MAIN()
