// A forward step on tiles packed as pairs of bfloat16.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

void forward(const ForwardTile<float>& tile);
std::size_t forward_scratch_bytes();

}  // namespace hetsp::attention::cpu::HETSP_ISA
