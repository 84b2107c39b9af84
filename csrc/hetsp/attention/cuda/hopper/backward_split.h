// The backward on Hopper in two kernels, one over tiles of keys for dk and dv, one over tiles of queries for dq: for head
// dimensions whose dk, dv and dq do not fit the registers together, and for sums of dq in a fixed order. Each computes the
// scores and dp for itself: 7 products instead of 5, and nothing is added in memory. See split_keys.cuh and split_queries.cuh.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

// Which instantiation serves a shape: head dimensions up to `dim` and `dim_v`. An item of the first kernel is a tile of `keys`
// keys, which meets `query_step` queries at a time, `stages` of them in shared memory; one of the second 128 queries, which
// meet `key_step` keys.
struct SplitTile {
  int dim, dim_v, keys, query_step, stages, key_step;
};
constexpr SplitTile split_tile(int dim) {
  if (dim == 128) return {128, 128, 128, 64, 4, 128};
  if (dim == 192) return {192, 128, 64, 64, 3, 96};
  return {256, 256, 64, 64, 2, 64};
}
constexpr SplitTile split_tile(const Shape& shape) {
  if (shape.head_dim <= 128 && shape.head_dim_v <= 128) return split_tile(128);
  return split_tile(shape.head_dim <= 192 && shape.head_dim_v <= 128 ? 192 : 256);
}

constexpr int split_queries = 128;  // of an item of the second kernel

// 3-D maps (dim, head, token) with the 128-byte swizzle: boxes of 64 columns, one head and so many tokens as the item or the
// step of the kernel has.
struct SplitMaps {
  TensorMap q, k, v, dout;
};
struct SplitBoxes {
  int queries, keys;
};
constexpr SplitBoxes split_keys_boxes(const SplitTile& tile) { return {tile.query_step, tile.keys}; }
constexpr SplitBoxes split_queries_boxes(const SplitTile& tile) { return {split_queries, tile.key_step}; }

// For bfloat16 and float16 with dout in that type (not out_is_acc), head dimensions up to 256 that are multiples of 8, fewer
// than 2^30 tokens; lse and delta are final. `keys` cuts the rows of k, `queries` those of q; `next_item` is a device int that
// is 0 when the kernel begins. All sums have a fixed order.
void split_key_gradients(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, const SplitMaps& maps,
                         void* stream);
void split_query_gradients(const BackwardParams& params, const TileList& queries, std::int32_t* next_item,
                           const SplitMaps& maps, void* stream);

}  // namespace hetsp::attention::cuda::hopper
