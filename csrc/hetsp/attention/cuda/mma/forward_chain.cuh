// The forward of a chain of pieces (chain.cuh) by the blocks of mma/forward.cuh: items (link, tile, head), links outermost.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/chain.cuh"
#include "hetsp/attention/cuda/mma/forward.cuh"
#include "hetsp/attention/cuda/mma/repair.cuh"

namespace hetsp::attention::cuda::mma {

template <int Dim, class Plan = ForwardPlan<Dim>>
struct ForwardChainShared : ForwardShared<Dim, Plan> {
  std::int32_t link;
};

// By thread 0: the block's next item that has something to do, when all that it reads is there.
template <int Dim, class Plan>
__device__ inline void take_item(const Chain& chain, const TileList& queries, const Scratch& scratch,
                                 ForwardChainShared<Dim, Plan>& shared) {
  const auto heads = static_cast<std::int32_t>(chain.link[0].shape.heads);
  const std::int32_t items = *queries.count * heads;
  for (;;) {
    const std::int32_t number = atomicAdd(scratch.next_item, 1);
    shared.item.item = -1, shared.item.suspect = 0;
    if (number >= items * chain.count) return;
    const std::int32_t link = number / items, item = number % items;
    shared.link = link;
    shared.item.head = item % heads, shared.item.tile = queries.tiles[item / heads];
    const ForwardParams& params = chain.link[link];
    shared.walk.begin(shared.item.tile, 0, shared.item.tile.rows, shared.item.head, 1);
    for (int i = 0; i < 2; ++i) shared.walk.advance(params.segments, params.shape, shared.step[i]);
    const bool sees = shared.step[0].count != 0;
    if (!sees && may_pass_over(chain, link)) {
      end_turn(chain, item, link, 1);
      continue;
    }
    if (sees) await_piece(chain, link);
    await_turn(chain, item, link, 1);
    shared.item.item = item;
    return;
  }
}

// forward_items' part for one item, whose first two steps are noted. It stands here once more because ptxas allots other
// registers to a plain call's kernels where they share it.
template <class Element, int Dim, class Plan>
__device__ inline void forward_link(const ForwardParams& params, const Scratch& scratch, ForwardShared<Dim, Plan>& shared) {
  using Warp = ForwardWarp<Element, Dim, Plan>;
  constexpr int threads = Plan::warps * warp_lanes;
  const Shape& shape = params.shape;
  const auto share = static_cast<std::int32_t>(shape.heads / shape.heads_kv);
  const int dim = static_cast<int>(shape.head_dim), dim_v = static_cast<int>(shape.head_dim_v);
  const Source q = source_of(params.q, dim, false), k = source_of(params.k, dim, false), v = source_of(params.v, dim_v, false);
  const Exponent exponent(params.score);
  const Tile& tile = shared.item.tile;
  stage<Element, threads>(shared.q, q, shared.item.head, tile.row0, 0, tile.rows);
  Warp warp{params, shared.item, warp_of_block() * Warp::rows, {}, {}, {}};
  warp.seed();
  __syncthreads();
  stream(
      shared.walk, shared.step, params.segments, shape,
      [&](int buffer, const Step& step) {
        const std::int32_t head_kv = shared.item.head / share;
        stage<Element, threads>(shared.k[buffer], k, head_kv, step.other0, step.skip, step.count);
        stage<Element, threads>(shared.v[buffer], v, head_kv, step.other0, step.skip, step.count);
      },
      [&](int buffer, const Step& step) { warp.attend(shared, buffer, step, exponent, dim, dim_v); });
  suspect(warp.finish(), shared.item);
  note_suspect(scratch, shared.item);
}

template <class Element, int Dim, class Plan = ForwardPlan<Dim>>
__device__ void forward_chain_items(const Chain& chain, const TileList& queries, const Scratch& scratch,
                                    ForwardChainShared<Dim, Plan>& shared) {
  for (;;) {
    __syncthreads();
    if (threadIdx.x == 0) take_item<Dim, Plan>(chain, queries, scratch, shared);
    __syncthreads();
    const std::int32_t item = shared.item.item;
    if (item < 0) return;
    forward_link<Element, Dim, Plan>(chain.link[shared.link], scratch, shared);  // ends with a barrier
    if (threadIdx.x == 0) end_turn(chain, item, shared.link, 1);
  }
}

template <int Dim>
struct RepairChainShared : RepairForwardShared<Dim> {
  ForwardParams params;  // of a link
};

// repair_forward_items for a chain: a row that is not finite is computed again over all links, without rounding between them.
template <int Dim>
__device__ void repair_chain_items(const Chain& chain, const TileList& queries, const Scratch& scratch,
                                   RepairChainShared<Dim>& shared) {
  using Block = cuda::ForwardBlock<float, Dim>;
  const ForwardParams& params = shared.params;
  const auto heads = static_cast<std::int32_t>(chain.link[0].shape.heads);
  const auto turn_to = [&](int link) {
    __syncthreads();  // the last part still reads shared memory
    if (threadIdx.x == 0) shared.params = chain.link[link];
    __syncthreads();
  };
  const auto of_results = [&] { return params.out_is_acc ? DType::float32 : params.shape.dtype; };
  for_each_suspect<Block::Tile::rows>(
      queries, scratch, heads, [&](const Tile& tile, std::int32_t head, std::int64_t row0, int rows) {
        turn_to(chain.count - 1);
        find_bad_rows(shared.bad, params.out, of_results(), head, row0, rows, params.shape.head_dim_v);
        cuda::stage(shared.block.q, params.q, params.shape.dtype, head, row0, rows, params.shape.head_dim);
        Block block{params, shared.block, head, row0, rows};
        for (int link = 0; link < chain.count; ++link) {
          turn_to(link);
          if (link == 0) block.seed();
          for (std::int64_t i = tile.first; i <= tile.last; ++i) block.attend(clamped(params.segments[i], params.shape));
        }
        block.normalise(false);
        write_bad_rows(shared.block.q, shared.bad, params.out, of_results(), head, row0, rows, params.shape.head_dim_v);
      });
}

}  // namespace hetsp::attention::cuda::mma
