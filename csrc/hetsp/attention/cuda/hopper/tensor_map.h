// Maps of strided tensors for the bulk tensor copies of tma.cuh, made on the host by the driver.
#pragma once

#include "hetsp/attention/cuda/hopper/box_view.h"
#include "hetsp/attention/cuda/hopper/tma.cuh"

namespace hetsp::attention::cuda::hopper {

// A map (dim, head, token) of `view`, for which box_refusal() is null. A box holds `columns` elements of `rows` tokens of one
// head, in shared memory with the 128-byte swizzle: columns * element bytes = 128, rows <= 256. What lies outside the tensor is
// read as 0 and not written. Throws DeviceError where the driver has no such maps or refuses this one.
[[nodiscard]] TensorMap tensor_map(const BoxView& view, int columns, int rows);

}  // namespace hetsp::attention::cuda::hopper
