// The tile arithmetic of each instruction set that it is compiled for.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"
#include "hetsp/base/isa.h"

namespace hetsp::attention::cpu {

using hetsp::active_isa;
using hetsp::best_isa;
using hetsp::Isa;
using hetsp::name;
using hetsp::supported_isas;

// Element: float, double, BFloat16 or Float16. The caller picks from supported_isas(); another set's functions are illegal
// instructions here.
template <class Element>
[[nodiscard]] TileMath<Element> tile_math(Isa isa);

}  // namespace hetsp::attention::cpu
