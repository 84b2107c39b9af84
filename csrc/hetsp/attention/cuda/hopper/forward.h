// The forward on Hopper as a launch on a stream; see forward.cuh for what it computes and how.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

// 3-D maps (dim, head, token) of boxes of 64 columns, one head and `rows` tokens, with the 128-byte swizzle.
struct ForwardMaps {
  TensorMap q, k, v;
};

// Which instantiation serves a shape: head dimensions up to `dim` and `dim_v`, in tiles of `keys` keys; the boxes of q have
// tile_rows rows, those of k and v `keys`.
struct ForwardTile {
  int dim, dim_v, keys;
};

constexpr ForwardTile forward_tile(const Shape& shape) {
  if (shape.head_dim <= 64 && shape.head_dim_v <= 64) return {64, 64, 128};
  if (shape.head_dim <= 128 && shape.head_dim_v <= 128) return {128, 128, 128};
  if (shape.head_dim <= 192 && shape.head_dim_v <= 128) return {192, 128, 128};
  return {256, 256, 80};
}

// For bfloat16 and float16, head dimensions up to 256 that are multiples of 8, fewer than 2^30 tokens. `queries` cuts the rows
// of q (tile_list.h); `next_item` is a device int that is 0 when the kernel begins.
void forward(const ForwardParams& params, const TileList& queries, std::int32_t* next_item, const ForwardMaps& maps,
             void* stream);

}  // namespace hetsp::attention::cuda::hopper
