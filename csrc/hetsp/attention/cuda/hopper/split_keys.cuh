// dk and dv on Hopper, formulas in params.h, where they do not fit the registers of one warpgroup together. An item is a tile
// of 64 keys of one key head: K and V stay in shared memory and the query tiles of all heads that share the keys stream by, of
// M = 128, 96 or 64 rows. One warp walks the steps and loads; two warpgroups compute, each two products a step, of equal work:
//
//   S^T = K Q^T;   P^T = exp(S^T - lse);                        dV += P^T dO
//   dP^T = V dO^T; dS^T = P^T (dP^T - D) [1 - (S / c)^2];       dK += dS^T Q
//
// transposed, so that P^T and dS^T are A operands straight from the accumulators. P^T goes from the first to the second through
// shared memory, in float32 and in the order in which threads hold it: thread i of one writes what thread i of the other reads.
// Nothing goes back but that a buffer is empty, so the first is half a step ahead and the tensor cores have the products of one
// while the other computes weights.
//
// Rows of Q and dO that belong to other documents, or whose lse or D is not finite, are zeroed, since 0 * NaN = NaN in the sums
// over them; hidden pairs are selected away, see backward.cuh. Nothing is summed over keys, so K and V stay as they are.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/split_keys_consumer.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_producer.cuh"

namespace hetsp::attention::cuda::hopper {

constexpr int split_producer_registers = 56, split_consumer_registers = 224;

template <class Config>
__device__ inline void split_keys_items(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                                        const SplitMaps& maps, SplitKeysShared<Config>& shared) {
  initialise_split_keys(shared);
  const int group = warpgroup_index();
  if (group == 0) {
    lower_registers<split_producer_registers>();
    if (warp_index() == 0) produce_split_keys<Config>(params, keys, next_item, maps, shared);
    return;
  }
  raise_registers<split_consumer_registers>();
  if (group == 1) {
    SplitValueConsumer<Config> consumer{{params, shared}};
    consumer.run();
  } else {
    SplitKeyConsumer<Config> consumer{{params, shared}};
    consumer.run();
  }
}

}  // namespace hetsp::attention::cuda::hopper
