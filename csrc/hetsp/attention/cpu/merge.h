// Merge of two partial results on the CPU. out may be the same memory as out_a or out_b, lse as lse_a or lse_b.
#pragma once

#include "hetsp/attention/params.h"
#include "hetsp/base/parallel.h"

namespace hetsp::attention::cpu {

void merge(const MergeParams& params, Parallel& parallel);

}  // namespace hetsp::attention::cpu
