// The backward on the tensor cores of any GPU from Ampere on (mma.sync), for bfloat16 and float16: every stride and offset,
// head dimensions 1 to 256. Bitwise repeatable: no sum is shared between blocks.
//
// It writes dq, dk and dv from q, k, v, dout, lse and delta; filling delta and dsink is the caller's, before. `queries`,
// `keys`: tiles of query rows and of key rows. `scratch`: scratch_words words on the device, of which the first zeroed_words
// are 0. Throws DeviceError where CUDA refuses a launch.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::mma {

void backward(const BackwardParams& params, const TileList& queries, const TileList& keys, std::int32_t* scratch, void* stream);

}  // namespace hetsp::attention::cuda::mma
