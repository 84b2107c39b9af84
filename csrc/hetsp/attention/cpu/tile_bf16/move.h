// Moves between tensors and tiles packed as pairs of bfloat16.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

// T: BFloat16, or float, which is rounded on the way in.
template <class T>
Move<T> pair_move();

}  // namespace hetsp::attention::cpu::HETSP_ISA
