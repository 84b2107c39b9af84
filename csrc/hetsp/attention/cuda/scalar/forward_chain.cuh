// The forward of a chain of pieces (chain.cuh) by the blocks of scalar/forward.cuh: a block does all links of its tile, one
// after another, so no block waits for another.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/chain.cuh"
#include "hetsp/attention/cuda/scalar/forward.cuh"

namespace hetsp::attention::cuda {

// Whether rows [row0, row0 + rows) see any key of segments first .. last.
__device__ inline bool see_any(const ForwardParams& params, SegmentRange range, std::int64_t row0, int rows) {
  for (std::int64_t i = range.first; i <= range.last; ++i) {
    const Segment segment = clamped(params.segments[i], params.shape);
    const std::int64_t first = larger(row0, segment.q_begin), last = smaller(row0 + rows, segment.q_end) - 1;
    if (first <= last && visible_keys(segment, first).begin < visible_keys(segment, last).end) return true;
  }
  return false;
}

// The link's params lie here to be read where they are needed: read from the chain they are kept in registers, which sums want.
template <class Acc, int Dim>
struct ForwardChainShared {
  ForwardShared<Acc, Dim> block;
  ForwardParams params;
};

// A tile's part of a link. A function of its own, not inlined: what the loop around it keeps is not in its registers.
template <class Acc, int Dim>
__device__ __attribute__((noinline)) void forward_link(ForwardChainShared<Acc, Dim>& shared, SegmentRange range,
                                                       std::int64_t head, std::int64_t row0, int rows) {
  const ForwardParams& params = shared.params;
  ForwardBlock<Acc, Dim> block{params, shared.block, head, row0, rows};
  stage(shared.block.q, params.q, params.shape.dtype, head, row0, rows, params.shape.head_dim);
  block.seed();
  for (std::int64_t i = range.first; i <= range.last; ++i) block.attend(clamped(params.segments[i], params.shape));
  block.finish();
}

// `index`: of the segments before they were cut, which touch no fewer rows.
template <class Acc, int Dim>
__device__ void forward_chain_tiles(const Chain& chain, SegmentIndex index, ForwardChainShared<Acc, Dim>& shared) {
  using Block = ForwardBlock<Acc, Dim>;
  const ForwardParams& params = shared.params;
  const std::int64_t heads = chain.link[0].shape.heads, total_q = chain.link[0].shape.total_q;
  const std::int64_t tiles = (total_q + Block::Tile::rows - 1) / Block::Tile::rows;
  for (std::int64_t item = blockIdx.x; item < tiles * heads; item += gridDim.x) {
    const std::int64_t row0 = (tiles - 1 - item / heads) * Block::Tile::rows;
    const int rows = static_cast<int>(smaller<std::int64_t>(total_q - row0, Block::Tile::rows));
    const SegmentRange range = index.queries[row0 / index_rows];
    for (int link = 0; link < chain.count; ++link) {
      __syncthreads();  // the last link still reads shared memory, and writes what is this one's seed
      if (threadIdx.x == 0) shared.params = chain.link[link];
      __syncthreads();
      const bool sees = see_any(params, range, row0, rows);
      if (!sees && may_pass_over(chain, link)) continue;
      if (sees && threadIdx.x == 0) await_piece(chain, link);
      __syncthreads();  // the piece is here
      forward_link(shared, range, item % heads, row0, rows);
    }
  }
}

}  // namespace hetsp::attention::cuda
