// The end of a query tile's forward as it mostly is; forward_output.cuh has the others.
#pragma once

#include <cmath>
#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_output.cuh"
#include "hetsp/attention/cuda/hopper/wgmma.cuh"

namespace hetsp::attention::cuda::hopper {

// Whether finish_usual_rows may be tried: rows of 16 bits that begin at multiples of 16 bytes, neither seed nor sink.
HETSP_INLINE bool is_usual(const ForwardParams& params) {
  const View& out = params.out;
  return params.seed_lse == nullptr && params.sink == nullptr && !params.out_is_acc &&
         is_aligned(out.data, out.token_stride, out.head_stride, 2, 16);
}

// finish_rows as it mostly is, in one short line: what a tile executes once comes from far in the instruction cache. False, in
// all lanes, where an element is a NaN or an infinity: then it has not been done. The rows pass through `stage`, shared memory
// of the warp's own, row r's 16 bytes c at 16 (c XOR r mod 8) of its place, and leave as whole lines.
template <class Element, int DimV>
HETSP_INLINE bool finish_usual_rows(const ForwardParams& params, const QueryItem& item, int first_row, const float (&top)[2],
                                    const float (&sum)[2], const float (&o)[DimV / 2], unsigned char* stage) {
  constexpr int row_bytes = DimV * 2, chunks = DimV / 8, at_once = 32 / chunks;
  static_assert(chunks == 8 || chunks == 16, "whole rows at once");
  int lanes[1] = {lane_index()};
  hold(lanes);  // there are no registers to keep what follows from it over the steps of a tile
  const int lane = lanes[0], rows = item.rows - first_row;  // rows: those that exist
  const std::int64_t row0 = item.row0 + first_row;
  float total[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) total[half] = sum[half] + shuffle_xor(sum[half], 1);
#pragma unroll
  for (int half = 0; half < 2; ++half) total[half] += shuffle_xor(total[half], 2);
  float reached[4] = {};  // sums of products: a NaN or an infinity stays one, and the rest is far from overflowing or redone
#pragma unroll
  for (int i = 0; i < DimV / 2; i += 2) reached[i / 2 % 4] += o[i] * o[i + 1];
  const bool clean = std::isfinite(reached[0] + reached[1] + reached[2] + reached[3]);
  if (__any_sync(0xffffffffu, !clean)) return false;
  float factor[2], lse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool seen = total[half] != 0.0f;
    factor[half] = seen ? reciprocal(total[half]) : 0.0f;
    lse[half] = seen ? (top[half] + log2_fast(total[half])) * static_cast<float>(kLn2) : -INFINITY;
  }
  hold(lse);  // in all lanes: a jump costs more
  float* const statistic = static_cast<float*>(params.lse) + item.head * params.shape.total_q + row0 + lane / 4;
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (lane % 4 == 0 && lane / 4 + 8 * half < rows) statistic[8 * half] = lse[half];
  const int place = lane % 16 * row_bytes + 16 * (lane / 16 ^ lane % 8);  // of chunk lane / 16 of row lane % 16
#pragma unroll
  for (int j = 0; j < DimV / 8; j += 2) {
    std::uint32_t tile[4];
#pragma unroll
    for (int m = 0; m < 4; ++m) {
      const int i = 4 * (j + m / 2) + 2 * (m % 2);
      tile[m] = pack<Element>(o[i] * factor[m % 2], o[i + 1] * factor[m % 2]);
    }
    store_matrices(stage + (place ^ 16 * (j & 7)) + 16 * (j & 8), tile);
  }
  __syncwarp();
  const int row = lane / chunks, chunk = lane % chunks, from = row * row_bytes + 16 * (chunk ^ row);
  Words4 words[16 / at_once];
#pragma unroll
  for (int i = 0; i < 16; i += at_once)
    words[i / at_once] = *reinterpret_cast<const Words4*>(stage + (from ^ 16 * (i & 7)) + i * row_bytes);
  unsigned char* to = static_cast<unsigned char*>(params.out.data) +
                      2 * ((row0 + row) * params.out.token_stride + item.head * params.out.head_stride + 8 * chunk);
  const std::int64_t stride = 2 * at_once * params.out.token_stride;
  const int end = 8 * chunk < static_cast<int>(params.shape.head_dim_v) ? rows - row : 0;
#pragma unroll
  for (int i = 0; i < 16; i += at_once) {
    if (i < end) *reinterpret_cast<Words4*>(to) = words[i / at_once];
    to += stride;
  }
  __syncwarp();
  return true;
}

}  // namespace hetsp::attention::cuda::hopper
