// The forward of a chain of pieces on Hopper as a launch on a stream; see forward_chain.cuh.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/chain.h"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::hopper {

// As ForwardMaps; a piece without rows needs none.
struct ChainMaps {
  TensorMap q, k[most_pieces], v[most_pieces];
};

// As forward(). `params`: the call's. `chain`: an even one.
void forward_chain(const ForwardParams& params, const Chain& chain, const TileList& queries, std::int32_t* next_item,
                   const ChainMaps& maps, void* stream);

}  // namespace hetsp::attention::cuda::hopper
