// Forward on the CPU. Params are validated by the caller (validate.h), segments too; pointers are host memory of any
// alignment that their type allows. Bitwise the same for any number of workers and for any batch around a sequence, but not
// between instruction sets, which may fuse multiply and add differently.
#pragma once

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/parallel.h"

namespace hetsp::attention::cpu {

void forward(const ForwardParams& params, Parallel& parallel, Isa isa = active_isa());

// The same with a given table, which must be of the params' type.
template <class Element>
void forward(const ForwardParams& params, Parallel& parallel, const TileMath<Element>& math);

}  // namespace hetsp::attention::cpu
