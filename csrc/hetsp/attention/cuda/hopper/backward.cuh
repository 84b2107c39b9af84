// Gradients on Hopper, formulas in params.h. A block works through items, each a tile of 128 keys of one key head: K and V stay
// in shared memory, dK and dV in registers, and the query tiles of all heads that share the keys stream by (FlashAttention-3,
// arXiv 2407.08608, and its backward, turned so that dK and dV need no atomics under grouped heads either).
//
// Warpgroup 0 moves data: one warp walks the steps (backward_steps.cuh), loads Q and dO by TMA, lse and D by itself; two warps
// carry dQ away. Warpgroups 1 and 2 compute, each for 64 of the keys and, per query tile of M rows,
//
//   S^T = K Q^T;  P^T = exp(S^T - lse);  dV += P^T dO;  dP^T = V dO^T;  dS^T = P^T (dP^T - D) [1 - (S / c)^2];  dK += dS^T Q
//
// transposed, so that P^T and dS^T are A operands straight from the accumulators. dS^T also goes to shared memory, where both
// warpgroups find all 128 keys for dQ = dS K, of which each computes a half: 64 columns (M = 64) or 64 rows (M = 128). dQ is
// added to memory by TMA, see dq_sums.cuh. Per tile, with "|" for a wait of this warpgroup:
//
//   issue S, dP | P and dS, issue dV; meet the other warpgroup, issue dQ, dK | dQ: store | dK
//
// A tile's rows and keys that belong to other documents are zeroed in Q, dO and K, since 0 * NaN = NaN in the sums over them,
// and hidden pairs are selected away: p and ds are 0, not multiplied by 0. Rows whose lse or D is not finite are zeroed too;
// their p and ds are NaN where they are seen. A NaN in K can still spread to rows of its document and tile that do not see it.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_consumer.cuh"
#include "hetsp/attention/cuda/hopper/backward_producer.cuh"

namespace hetsp::attention::cuda::hopper {

constexpr int producer_registers = 24, consumer_registers = 240;

template <class Element, class Shared, bool Softcap>
__device__ inline void backward_items(const BackwardParams& params, const TileList& keys, std::int32_t* next_item,
                                      const BackwardMaps& maps, Shared& shared) {
  initialise(params, shared);
  const int group = warpgroup_index();
  if (group == 0) {
    lower_registers<producer_registers>();
    const int warp = warp_index();
    if (warp == 0) return produce(params, keys, next_item, maps, shared);
    if (warp <= consumers) carry_dq(maps, shared, warp - 1);
    return;
  }
  raise_registers<consumer_registers>();
  const auto scale = static_cast<float>(params.score.softmax_scale), softcap = static_cast<float>(params.score.softcap);
  const BackwardConsumer<Element, Shared, Softcap> consumer{params, shared, group - 1,
                                                            Softcap ? 2 * log2_e * scale / softcap : log2_e * scale};
  consumer.run();
}

}  // namespace hetsp::attention::cuda::hopper
