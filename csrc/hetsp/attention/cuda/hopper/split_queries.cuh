// dq on Hopper, formulas in params.h, with sums of a fixed order: the shape of the forward (forward.cuh). An item is a tile of
// 128 queries of one head. Q and dO stay in shared memory, dQ in registers, and the keys that its rows see stream by, 128, 96
// or 64 at a time. One warp walks and loads; two warpgroups of 64 rows each compute, per step,
//
//   S = Q K^T;  dP = dO V^T;  dS = exp(S - lse) (dP - D) [1 - (S / c)^2];  dQ += dS K
//
// dS is an A operand straight from the accumulators. A row's steps are counted from the first key of its segment: its sums
// depend neither on the grid nor on what shares its tile.
//
// Hidden pairs are selected away, and K is zeroed behind the segment's end, since 0 * NaN = NaN in the sum over keys. What a
// NaN inside the segment does to rows that do not see it is mended at the end (split_mend.cuh); one in Q, dO, lse or D stays in
// its row.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/split_queries_consumer.cuh"
#include "hetsp/attention/cuda/hopper/split_queries_producer.cuh"

namespace hetsp::attention::cuda::hopper {

constexpr int split_queries_producer_registers = 56, split_queries_consumer_registers = 224;

template <class Config>
__device__ inline void split_queries_items(const BackwardParams& params, const TileList& queries, std::int32_t* next_item,
                                           std::int32_t together, const SplitMaps& maps, SplitQueriesShared<Config>& shared) {
  initialise_split_queries(shared);
  const int group = warpgroup_index();
  if (group == 0) {
    lower_registers<split_queries_producer_registers>();
    if (warp_index() == 0) {
      SplitQueriesProducer<Config> producer{params, maps, shared, lane_index()};
      producer.run(queries, next_item, together);
    }
    return;
  }
  raise_registers<split_queries_consumer_registers>();
  SplitQueryConsumer<Config> consumer{params, shared, group - 1, weight_factors(params.score)};
  consumer.run();
}

}  // namespace hetsp::attention::cuda::hopper
