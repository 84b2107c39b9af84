// The backward on Hopper as launches on a stream; see backward.cuh for what it computes and how.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

// Which instantiation serves a shape: both head dimensions up to `dim`, query tiles of `queries` rows.
struct BackwardTile {
  int dim, queries;
};
constexpr int backward_max_dim = 128;
constexpr BackwardTile backward_tile(const Shape& shape) {
  return shape.head_dim <= 64 && shape.head_dim_v <= 64 ? BackwardTile{64, 128} : BackwardTile{128, 64};
}

// 3-D maps (dim, head, token) with the 128-byte swizzle. Boxes of q, k, v, dout: 64 columns, one head, 64 tokens; of dq_sums:
// 32 float32, one head, 64 tokens.
struct BackwardMaps {
  TensorMap q, k, v, dout;
  TensorMap dq_sums;  // [total_q, heads, dim] contiguous, of the tile's dim
};

// For bfloat16 and float16 with dout in that type (where out_is_acc, the map is that of `rounded` below), head dimensions up to
// backward_max_dim that are multiples of 8, fewer than 2^30 tokens; lse and delta are final. `keys` cuts the rows of k;
// `next_item` is a device int that is 0 when the kernel begins; dq_sums is zero then, and afterwards holds dq / softmax_scale
// in the order of dq_sums.cuh. dk and dv are written.
//
// The sums of dk and dv have a fixed order. Those of dq are added to memory as they come: from run to run its last bits may
// differ where more than two tiles of keys meet a row.
void backward(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, const BackwardMaps& maps,
              void* stream);

// Ahead of it: zeroes dq_sums, fills params.fill_delta, where it is set, with D, and where out_is_acc `rounded` with dout in
// the type of q, [total_q, heads, head_dim_v]. `beside_list`: the stream's last launch is a build of tile lists, and this one
// need not wait for it; what follows does.
void prepare(const BackwardParams& params, float* dq_sums, void* rounded, bool beside_list, void* stream);

// After it: dq of dq_sums.
void finish_dq(const BackwardParams& params, const float* dq_sums, void* stream);

}  // namespace hetsp::attention::cuda::hopper
