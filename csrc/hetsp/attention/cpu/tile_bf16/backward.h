// A backward step on tiles packed as pairs of bfloat16.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

void backward(const BackwardTile<float>& tile);
std::size_t backward_scratch_bytes();

}  // namespace hetsp::attention::cpu::HETSP_ISA
