// The forward of a chain of pieces on the tensor cores of any GPU from Ampere on; as mma/forward.h.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/chain.h"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

// `most_items`: of a link, a bound.
void forward_chain(const Chain& chain, const TileList& queries, std::int64_t most_items, std::int32_t* scratch, void* stream);

}  // namespace hetsp::attention::cuda::mma
