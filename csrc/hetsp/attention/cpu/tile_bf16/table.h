// The table of bfloat16 on a CPU with products of bfloat16 pairs (AVX512_BF16, AMX-BF16): q, k, v and dout as they are, weights
// and their gradients rounded to bfloat16 as factors of products, all sums in float32.
#pragma once

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

TileMath<BFloat16> pair_math();

}  // namespace hetsp::attention::cpu::HETSP_ISA
