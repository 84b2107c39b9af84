// Computes suspected items (scratch.h) again with the scalar blocks of scalar/forward.cuh and scalar/backward.cuh, which leave
// hidden pairs out of their sums instead of multiplying by 0. Only rows whose results are not finite are written: the others
// keep their bits, whatever their neighbours in the tile have seen.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/scalar/backward.cuh"
#include "hetsp/attention/cuda/scalar/forward.cuh"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

// Calls body(tile, head, row0, rows) for each part of at most `Side` rows of each suspected item; blocks take turns.
template <int Side, class Body>
__device__ inline void for_each_suspect(const TileList& list, const Scratch& scratch, std::int32_t heads, const Body& body) {
  const std::int32_t noted = *scratch.suspect_count, all = *list.count * heads;
  const std::int32_t items = noted <= most_suspects ? noted : all;
  for (std::int32_t i = static_cast<std::int32_t>(blockIdx.x); i < items; i += static_cast<std::int32_t>(gridDim.x)) {
    const std::int32_t item = noted <= most_suspects ? scratch.suspects[i] : i;
    const Tile tile = list.tiles[item / heads];
    for (int from = 0; from < tile.rows; from += Side)
      body(tile, item % heads, tile.row0 + from, static_cast<int>(smaller<std::int64_t>(tile.rows - from, Side)));
  }
}

// Which of `rows` rows of a result hold a number that is not finite. All threads call, and have left `bad` before.
template <int Side>
__device__ inline void find_bad_rows(int (&bad)[Side], const View& view, DType dtype, std::int64_t head, std::int64_t row0,
                                     int rows, std::int64_t dim) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < Side) bad[thread] = 0;
  __syncthreads();
  for (int row = thread / warp_threads; row < rows; row += block_threads / warp_threads) {
    const std::int64_t offset = (row0 + row) * view.token_stride + head * view.head_stride;
    bool found = false;
    for (int column = thread % warp_threads; column < static_cast<int>(dim); column += warp_threads)
      found = found || !(load<float>(view.data, dtype, offset + column) * 0.0f == 0.0f);
    if (found) atomicMax(&bad[row], 1);
  }
  __syncthreads();
}

// unstage, of the bad rows alone.
template <int Rows, int Pitch, int Side>
__device__ inline void write_bad_rows(const float (&tile)[Rows][Pitch], const int (&bad)[Side], const View& view, DType dtype,
                                      std::int64_t head, std::int64_t row0, int rows, std::int64_t dim) {
  for (int row = 0; row < rows; ++row)
    if (bad[row] != 0) {
      const std::int64_t offset = (row0 + row) * view.token_stride + head * view.head_stride;
      for (int column = static_cast<int>(threadIdx.x); column < static_cast<int>(dim); column += block_threads)
        store(view.data, dtype, offset + column, tile[row][column]);
    }
}

template <int Dim>
struct RepairForwardShared {
  cuda::ForwardShared<float, Dim> block;
  int bad[cuda::ForwardTile<float, Dim>::rows];
};

// Out alone: lse comes from scores, among which what is hidden was left out by selection.
template <int Dim>
__device__ void repair_forward_items(const ForwardParams& params, const TileList& queries, const Scratch& scratch,
                                     RepairForwardShared<Dim>& shared) {
  using Block = cuda::ForwardBlock<float, Dim>;
  const Shape& shape = params.shape;
  const DType dtype = params.out_is_acc ? DType::float32 : shape.dtype;
  for_each_suspect<Block::Tile::rows>(queries, scratch, static_cast<std::int32_t>(shape.heads),
                                      [&](const Tile& tile, std::int32_t head, std::int64_t row0, int rows) {
                                        Block block{params, shared.block, head, row0, rows};
                                        __syncthreads();  // the last part still reads shared memory
                                        find_bad_rows(shared.bad, params.out, dtype, head, row0, rows, shape.head_dim_v);
                                        cuda::stage(shared.block.q, params.q, shape.dtype, head, row0, rows, shape.head_dim);
                                        block.seed();
                                        for (std::int64_t i = tile.first; i <= tile.last; ++i)
                                          block.attend(clamped(params.segments[i], shape));
                                        block.normalise(false);
                                        write_bad_rows(shared.block.q, shared.bad, params.out, dtype, head, row0, rows,
                                                       shape.head_dim_v);
                                      });
}

template <int Dim>
struct RepairBackwardShared {
  cuda::BackwardShared<float, Dim> block;
  int bad_qk[cuda::backward_side<float, Dim>], bad_v[cuda::backward_side<float, Dim>];
};

// Puts a block's sums, times `factor`, where write_bad_rows reads them, and writes them.
template <int R, int W, int Rows, int Pitch>
__device__ inline void write_sums(const float (&sum)[R][W], float factor, float (&tile)[Rows][Pitch], const int (&bad)[Rows],
                                  const View& view, DType dtype, std::int64_t head, std::int64_t row0, int rows,
                                  std::int64_t dim) {
  float factors[R];
#pragma unroll
  for (int i = 0; i < R; ++i) factors[i] = factor;
  __syncthreads();
  spread(sum, factors, tile);
  __syncthreads();
  write_bad_rows(tile, bad, view, dtype, head, row0, rows, dim);
}

template <int Dim>
__device__ void repair_dq_items(const BackwardParams& params, const TileList& queries, const Scratch& scratch,
                                RepairBackwardShared<Dim>& shared) {
  using Block = cuda::DqBlock<float, Dim>;
  const Shape& shape = params.shape;
  const DType dtype = params.grads_are_acc ? DType::float32 : shape.dtype;
  for_each_suspect<Block::side>(queries, scratch, static_cast<std::int32_t>(shape.heads),
                                [&](const Tile& tile, std::int32_t head, std::int64_t row0, int rows) {
                                  Block block{params, shared.block, head, row0, rows};
                                  __syncthreads();  // the last part still reads shared memory
                                  find_bad_rows(shared.bad_qk, params.dq, dtype, head, row0, rows, shape.head_dim);
                                  block.begin();
                                  for (std::int64_t i = tile.first; i <= tile.last; ++i)
                                    block.attend(clamped(params.segments[i], shape));
                                  write_sums(block.dq, static_cast<float>(params.score.softmax_scale), shared.block.own_qk,
                                             shared.bad_qk, params.dq, dtype, head, row0, rows, shape.head_dim);
                                });
}

template <int Dim>
__device__ void repair_dkdv_items(const BackwardParams& params, const TileList& keys, const Scratch& scratch,
                                  RepairBackwardShared<Dim>& shared) {
  using Block = cuda::DkdvBlock<float, Dim>;
  const Shape& shape = params.shape;
  const DType dtype = params.grads_are_acc ? DType::float32 : shape.dtype;
  for_each_suspect<Block::side>(keys, scratch, static_cast<std::int32_t>(shape.heads_kv),
                                [&](const Tile& tile, std::int32_t head, std::int64_t row0, int rows) {
                                  Block block{params, shared.block, head, row0, rows};
                                  __syncthreads();  // the last part still reads shared memory
                                  find_bad_rows(shared.bad_qk, params.dk, dtype, head, row0, rows, shape.head_dim);
                                  find_bad_rows(shared.bad_v, params.dv, dtype, head, row0, rows, shape.head_dim_v);
                                  block.begin();
                                  for (std::int64_t i = tile.first; i <= tile.last; ++i)
                                    block.attend(clamped(params.segments[i], shape));
                                  write_sums(block.dk, static_cast<float>(params.score.softmax_scale), shared.block.own_qk,
                                             shared.bad_qk, params.dk, dtype, head, row0, rows, shape.head_dim);
                                  write_sums(block.dv, 1.0f, shared.block.own_vo, shared.bad_v, params.dv, dtype, head, row0,
                                             rows, shape.head_dim_v);
                                });
}

}  // namespace hetsp::attention::cuda::mma
