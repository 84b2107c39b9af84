// Backward on the CPU; the contract is that of forward.h.
#pragma once

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/parallel.h"

namespace hetsp::attention::cpu {

void backward(const BackwardParams& params, Parallel& parallel, Isa isa = active_isa());

// The same with a given table, which must be of the params' type.
template <class Element>
void backward(const BackwardParams& params, Parallel& parallel, const TileMath<Element>& math);

}  // namespace hetsp::attention::cpu
