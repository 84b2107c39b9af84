// Persistent blocks: each takes item after item, tile * heads + head, from one counter; tiles come longest first, and heads
// that share keys are neighbours, for the L2 cache.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

struct ItemShared {
  std::int32_t item, suspect;
};

// The block's next item, or -1; all threads call, and have left shared memory when it returns.
__device__ inline std::int32_t next_item(const Scratch& scratch, const TileList& list, std::int32_t heads, ItemShared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const std::int32_t item = atomicAdd(scratch.next_item, 1);
    shared.item = item < *list.count * heads ? item : -1;
    shared.suspect = 0;
  }
  __syncthreads();
  return shared.item;
}

// Notes the item where any thread's `trace` is NaN; all threads call.
__device__ inline void note_suspect(const Scratch& scratch, float trace, ItemShared& shared) {
  if (!(trace == 0.0f)) atomicMax(&shared.suspect, 1);
  __syncthreads();
  if (threadIdx.x != 0 || shared.suspect == 0) return;
  const std::int32_t place = atomicAdd(scratch.suspect_count, 1);
  if (place < most_suspects) scratch.suspects[place] = shared.item;
}

}  // namespace hetsp::attention::cuda::mma
