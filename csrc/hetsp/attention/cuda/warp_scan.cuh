// Prefixes over the 32 lanes of a warp. On the host the shuffle comes from tests/cpp/support/warp_on_cpu.h.
#pragma once

#include <cstdint>

namespace hetsp::attention::cuda {

struct WarpScanned {
  std::int32_t before, through;  // of the lanes before this one, 0 in the first; with this one
};

// All lanes call; `join` is associative, and 0 joins as nothing.
template <class Join>
__device__ WarpScanned warp_scan(std::int32_t value, Join join) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const std::int32_t other = __shfl_up_sync(0xffffffffu, value, step);
    if (lane >= step) value = join(other, value);
  }
  const std::int32_t before = __shfl_up_sync(0xffffffffu, value, 1);
  return {lane == 0 ? 0 : before, value};
}

}  // namespace hetsp::attention::cuda
