// The forward for Hopper: FlashAttention-3's shape (Shah et al., arXiv 2407.08608) over an exact work list.
//
// A persistent block takes (query tile of 128 rows, head) from a counter, longest first. One thread of the first warpgroup
// produces: it walks the tile's key tiles (forward_steps.cuh) and has the copy engine bring Q, K and V, `stages` of them ahead.
// Two consumer warpgroups of 64 rows each run, per key tile, from the state (mu, l, O) = (-inf, 0, 0) in base 2:
//
//   S = Q K^T;  P = 2^(c S - mu');  l = 2^(mu - mu') l + sum_j P;  O = 2^(mu - mu') O + P V
//
// with c = softmax_scale log2(e), the product with P's rounding to 16 bits, all else in float32. mu is a maximum of the first
// scores that the row saw, or of later ones once its weights have grown far (check_weights): any number near serves. O += P V
// of a step runs on the tensor cores while the next step's weights are made, and the two warpgroups take turns at issuing
// products, so that one multiplies while the other exponentiates. P stays in registers: an accumulator is laid out as the next
// product's A.
//
// Hidden scores are selected to -inf, in tiles that an edge cuts only. V rows beyond the segment are zeroed before they meet
// P (forward_sweeper.cuh), since 0 * NaN is NaN; what a NaN inside the segment does to rows that do not see it is mended at the
// end (forward_output.cuh).
#pragma once

#include "hetsp/attention/cuda/hopper/forward_consumer.cuh"
#include "hetsp/attention/cuda/hopper/forward_producer.cuh"
#include "hetsp/attention/cuda/hopper/forward_sweeper.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
HETSP_INLINE void forward_block(const typename Config::Arguments& arguments, ForwardShared<Config>& shared) {
  static_assert(sizeof(ForwardShared<Config>) <= most_shared_bytes, "more shared memory than a block can have");
  const int group = warpgroup_index();
  if (threadIdx.x == 0) shared.begin();
  __syncthreads();
  if (group == 0) {
    lower_registers<producer_registers>();
    if constexpr (Config::chained) {  // its producer has no register for a warp that may have parted
      if (warp_index() == 1) return ForwardSweeper<Config>(shared).run();
    }
    if (threadIdx.x == 0) ForwardProducer<Config>(arguments, shared).run();
    if (!Config::chained && threadIdx.x / 32 == 1) ForwardSweeper<Config>(shared).run();
  } else {
    raise_registers<consumer_registers>();
    ForwardConsumer<Config>(arguments, shared, group - 1).run();
  }
}

}  // namespace hetsp::attention::cuda::hopper
