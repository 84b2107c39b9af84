// The bulk tensor copy engine: boxes of a strided 3-D tensor (dim, head, token) to and from shared memory. One thread issues.
// What lies outside the tensor is read as zero and not written. With the 128-byte swizzle a box of 128-byte rows lands as one
// panel of shared_tile.cuh. Maps are made on the host (tensor_map.h).
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/mbarrier.cuh"

#if defined(__CUDACC__)

namespace hetsp::attention::cuda::hopper {

// A CUtensorMap, in a __grid_constant__ kernel parameter: the engine reads it by its address.
struct alignas(64) TensorMap {
  unsigned char opaque[128];
};

__device__ inline std::uint64_t address_of(const TensorMap& map) { return reinterpret_cast<std::uint64_t>(&map); }

__device__ inline void prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(address_of(map)) : "memory");
}

// The box at (c0, c1, c2); `full` counts its bytes, those outside the tensor too.
__device__ inline void load_box(void* shared, const TensorMap& map, Barrier& full, int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
          shared_address(shared)),
      "l"(address_of(map)), "r"(shared_address(&full)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

// Adds the box of float32 to the tensor, element by element, in no order among boxes. Part of the thread's open bulk group. Its
// coordinates are not negative: beyond an end nothing is added, before the begin it is an illegal instruction (as seen on an
// H200).
__device__ inline void reduce_add_box(const TensorMap& map, const void* shared, int c0, int c1, int c2) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(address_of(map)),
      "r"(shared_address(shared)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

__device__ inline void commit_bulk() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most N of the thread's groups have still to read their shared memory, or (wait_bulk) to be complete.
template <int N>
__device__ inline void wait_bulk_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
}
template <int N>
__device__ inline void wait_bulk() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace hetsp::attention::cuda::hopper

#endif  // __CUDACC__
