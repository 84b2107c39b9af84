// Widening of any element type to its accumulate type, exactly, and rounding back.
#pragma once

#include "hetsp/attention/number.h"

namespace hetsp::attention::cpu {

constexpr double widen(double x) { return x; }
constexpr float widen(float x) { return x; }
constexpr float widen(BFloat16 x) { return to_float(x); }
constexpr float widen(Float16 x) { return to_float(x); }

constexpr void narrow(double x, double& to) { to = x; }
constexpr void narrow(float x, float& to) { to = x; }
constexpr void narrow(float x, BFloat16& to) { to = to_bfloat16(x); }
constexpr void narrow(float x, Float16& to) { to = to_float16(x); }

}  // namespace hetsp::attention::cpu
