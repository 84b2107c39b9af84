// Built by a compiler or an assembler that does not know AMX-BF16, or for another processor: the level amx is avx512_bf16.
#include "hetsp/attention/cpu/tile_bf16/table.h"

namespace hetsp::attention::cpu {

namespace avx512_bf16 {
TileMath<BFloat16> pair_math();
}

namespace HETSP_ISA {
TileMath<BFloat16> pair_math() { return avx512_bf16::pair_math(); }
}  // namespace HETSP_ISA

}  // namespace hetsp::attention::cpu
