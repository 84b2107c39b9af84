// The chain of pieces.h on the CPU: link after link; before one whose keys some row sees the calling thread waits for its
// piece. Throws NotArrived where that takes longer than the call's patience. Params and segments are validated by the caller.
#pragma once

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/pieces.h"
#include "hetsp/base/parallel.h"

namespace hetsp::attention::cpu {

void forward(const PiecesParams& params, Parallel& parallel, Isa isa = active_isa());

}  // namespace hetsp::attention::cpu
