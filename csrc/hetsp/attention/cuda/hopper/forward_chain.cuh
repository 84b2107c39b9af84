// The forward of a chain of pieces (chain.cuh) by the blocks of forward.cuh. Items are (link, tile, head), links outermost. The
// producer waits for a piece before it asks the copy engine for its keys; a consumer warp waits, before it writes its 16 rows
// of a tile, for what the links before have left of them. With a tile's rows written beside the first step of the block's next
// item still nothing waits in a circle: that step waits for a piece at most, and pieces come from outside.
#pragma once

#include "hetsp/attention/cuda/chain.cuh"
#include "hetsp/attention/cuda/hopper/forward.cuh"

namespace hetsp::attention::cuda::hopper {

struct ChainItem : QueryItem {
  std::int32_t link, number;  // its place among the items of a link
};

// params: of every link, but for its keys, which are those of `chain`; maps.k and maps.v are not read.
struct ChainArguments : ForwardArguments {
  Chain chain;  // an even one
  TensorMap k[most_pieces], v[most_pieces];
};

template <class Element, int Dim, bool Squashed>
struct ChainConfig : ForwardConfig<Element, Dim, Squashed> {
  static constexpr bool chained = true;
  using Arguments = ChainArguments;
  using Item = ChainItem;
};

}  // namespace hetsp::attention::cuda::hopper
