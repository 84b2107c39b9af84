// Persistent blocks: each takes item after item, tile * heads + head, from one counter; tiles come longest first, and heads
// that share keys are neighbours, for the L2 cache.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/band.cuh"
#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/mma/warp_mma.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

// The block's item. It stays here, to be read where it is needed: in registers it would cost sums.
struct ItemShared {
  std::int32_t item, suspect, head;
  Tile tile;
};

// Takes the block's next item, or returns false; all threads call, and have left shared memory when it returns.
__device__ inline bool next_item(const Scratch& scratch, const TileList& list, std::int32_t heads, ItemShared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const std::int32_t item = atomicAdd(scratch.next_item, 1);
    const bool there = item < *list.count * heads;
    shared.item = there ? item : -1, shared.suspect = 0;
    if (there) shared.head = item % heads, shared.tile = list.tiles[item / heads];
  }
  __syncthreads();
  return shared.item >= 0;
}

// The item is suspect where any thread's `trace` is NaN.
__device__ inline void suspect(float trace, ItemShared& shared) {
  if (!(trace == 0.0f)) atomicMax(&shared.suspect, 1);
}

// Writes the item down if it is suspect; all threads call.
__device__ inline void note_suspect(const Scratch& scratch, ItemShared& shared) {
  __syncthreads();
  if (threadIdx.x != 0 || shared.suspect == 0) return;
  const std::int32_t place = atomicAdd(scratch.suspect_count, 1);
  if (place < most_suspects) scratch.suspects[place] = shared.item;
}

// Runs through the steps of an item in two stages of shared memory: while one is attended the next is on its way. Step 0 and 1
// are there, own rows are staged. load(stage, step) issues copies, attend(stage, step) uses them.
template <class Walker, class Load, class Attend>
__device__ inline void stream(Walker& walk, Step (&steps)[3], const Segment* segments, const Shape& shape, const Load& load,
                              const Attend& attend) {
  load(0, steps[0]);
  commit_copies();
  int now = 0;
  for (int buffer = 0;; buffer ^= 1) {
    const Step& step = steps[now];
    wait_copies<0>();
    if (step.count == 0) return;
    __syncthreads();  // this stage is here, the other one is free
    const int next = now == 2 ? 0 : now + 1;
    load(buffer ^ 1, steps[next]);
    commit_copies();
    if (threadIdx.x == 0) walk.advance(segments, shape, steps[next == 2 ? 0 : next + 1]);
    converge();
    attend(buffer, step);
    now = next;
  }
}

}  // namespace hetsp::attention::cuda::mma
