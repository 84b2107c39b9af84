// dk and dv on Hopper, formulas in params.h. An item is a tile of keys of one key head: K and V stay, and the query tiles of
// all heads that share the keys stream by, of 64 rows each.
//
//   S^T = K Q^T;   P^T = exp(S^T - lse);                        dV += P^T dO
//   dP^T = V dO^T; dS^T = P^T (dP^T - D) [1 - (S / c)^2];       dK += dS^T Q
//
// transposed, so that P^T and dS^T are A operands straight from the accumulators. Where the registers of a warpgroup hold both
// sums, head dimensions up to 128, an item is 128 keys and each of two warpgroups computes all for 64 of them
// (split_joint_consumer.cuh). Beyond, an item is 64 keys, and the first warpgroup computes the upper line, the second the
// lower: equal work. P^T goes from the first to the second through shared memory, in float32 and in the order in which threads
// hold it: thread i of one writes what thread i of the other reads. Nothing goes back but that a buffer is empty, so the first
// is half a step ahead and the tensor cores have the products of one while the other computes weights
// (split_keys_consumer.cuh).
//
// One warp walks the steps and loads; others bring the rows' lse and D. Rows of Q and dO that belong to other documents, or
// whose lse or D is not finite, are zeroed, since 0 * NaN = NaN in the sums over them; hidden pairs are selected away, see
// backward.cuh. Nothing is summed over keys, so K and V stay as they are.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/split_joint_consumer.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_consumer.cuh"
#include "hetsp/attention/cuda/hopper/split_keys_producer.cuh"

namespace hetsp::attention::cuda::hopper {

constexpr int split_keys_producer_registers = 40, split_keys_consumer_registers = 232;

template <class Config>
__device__ inline void split_keys_items(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                                        std::int32_t together, const SplitMaps& maps, SplitKeysShared<Config>& shared) {
  initialise_split_keys(shared);
  const int group = warpgroup_index();
  if (group == 0) {
    lower_registers<split_keys_producer_registers>();
    const int warp = warp_index();
    if (warp == 0) return produce_split_keys<Config>(params, keys, next_item, together, maps, shared);
    if (warp <= SplitKeysShared<Config>::statistic_warps) bring_statistics(params, shared, warp - 1);
    return;
  }
  raise_registers<split_keys_consumer_registers>();
  if constexpr (Config::joint) {
    SplitJointConsumer<Config> consumer{{params, shared}, 64 * (group - 1)};
    consumer.run();
  } else if (group == 1) {
    SplitValueConsumer<Config> consumer{{params, shared}};
    consumer.run();
  } else {
    SplitKeyConsumer<Config> consumer{{params, shared}};
    consumer.run();
  }
}

}  // namespace hetsp::attention::cuda::hopper
