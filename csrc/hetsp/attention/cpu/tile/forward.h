// TileMath::forward on the wide forms. Acc: float, double.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

template <class Acc>
void forward(const ForwardTile<Acc>& tile);

}  // namespace hetsp::attention::cpu::HETSP_ISA
