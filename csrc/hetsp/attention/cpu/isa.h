// The instruction sets that the tile arithmetic is compiled for, what this machine can run, and the functions of each.
#pragma once

#include <vector>

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu {

enum class Isa { portable, avx2, avx512 };

[[nodiscard]] const char* name(Isa isa);
[[nodiscard]] const std::vector<Isa>& supported_isas();  // of those compiled in; ascending, `portable` always first
[[nodiscard]] Isa best_isa();

// Acc: float or double. The caller picks from supported_isas(); another set's functions are illegal instructions here.
template <class Acc>
[[nodiscard]] TileMath<Acc> tile_math(Isa isa);

}  // namespace hetsp::attention::cpu
