// Moves into and from the wide forms, tiles of the accumulate type. T: float, double, BFloat16, Float16.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

template <class T>
Move<T> wide_move();

}  // namespace hetsp::attention::cpu::HETSP_ISA
