// The forward on the tensor cores of any GPU from Ampere on (mma.sync), for bfloat16 and float16: every stride and offset,
// head dimensions 1 to 256, all of ForwardParams.
//
// `queries`: tiles of query rows. `scratch`: scratch_words words on the device, of which the first zeroed_words are 0. Throws
// DeviceError where CUDA refuses a launch.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::mma {

void forward(const ForwardParams& params, const TileList& queries, std::int32_t* scratch, void* stream);

}  // namespace hetsp::attention::cuda::mma
