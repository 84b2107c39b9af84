// The tables of this instruction set.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

// Element by way of the wide forms: products and sums of the accumulate type. Element: float, double, BFloat16, Float16.
template <class Element>
TileMath<Element> wide_math();

}  // namespace hetsp::attention::cpu::HETSP_ISA
