// Launches of repair.cuh: behind a pass that noted its suspects, on the same stream and with the pass's own tiles. Without
// suspects each costs the launch of blocks that find nothing to do.
#pragma once

#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::mma {

void repair_forward(const ForwardParams& params, const TileList& queries, const Scratch& scratch, void* stream);
void repair_dq(const BackwardParams& params, const TileList& queries, const Scratch& scratch, void* stream);
void repair_dkdv(const BackwardParams& params, const TileList& keys, const Scratch& scratch,
                 void* stream);  // items of kv heads

}  // namespace hetsp::attention::cuda::mma
