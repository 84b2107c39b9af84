// Built by a compiler that does not know AVX512_BF16, or for another processor: bfloat16 is widened, as on every other level.
#include "hetsp/attention/cpu/tile_bf16/table.h"

namespace hetsp::attention::cpu {

namespace avx512 {
template <class Element>
TileMath<Element> wide_math();
}

namespace HETSP_ISA {
TileMath<BFloat16> pair_math() { return avx512::wide_math<BFloat16>(); }
}  // namespace HETSP_ISA

}  // namespace hetsp::attention::cpu
