// What an attention kernel takes, on every device: plain structs, no tensors. Filled and checked once, at the edge.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

#include "hetsp/attention/segment.h"

namespace hetsp::attention {

enum class DType { float32, float64, bfloat16, float16 };

// Accumulate type ("acc" below): float64 for float64 inputs, float32 for all others. LSE, sink, seeds and partial
// results are acc.

// [tokens, heads, dim], dim contiguous. Strides in elements; any value, 0 and negative included.
struct ConstView {
  const void* data;
  std::int64_t token_stride, head_stride;
};
struct View {
  void* data;
  std::int64_t token_stride, head_stride;
};

struct Shape {
  std::int64_t total_q, total_k;  // rows of q and of k, v
  std::int64_t heads, heads_kv;   // heads % heads_kv == 0; query head a reads kv head a / (heads / heads_kv)
  std::int64_t head_dim, head_dim_v;
  DType dtype;
};

// s_ij = x_ij or softcap * tanh(x_ij / softcap), x_ij = softmax_scale * q_i . k_j; softcap 0: off.
struct Score {
  double softmax_scale, softcap;
};

// What a GPU makes of a list of segments before it computes (cuda/tile_list.h): the same for every call on them, forward and
// backward, of all layers of a step. The CPU has no use for it.
struct ListsParams {
  const Segment* segments;
  std::int64_t segment_count, total_q, total_k;
  void* lists;  // [lists_bytes]
};

// Enough for any list of so many segments: cuda/tile_list_layout.cuh takes less.
constexpr std::int64_t lists_bytes(std::int64_t segment_count, std::int64_t total_q, std::int64_t total_k) {
  return 16384 + total_q + total_k + 192 * segment_count;
}

// out_i = sum_j p_ij v_j, lse_i = ln sum_j e^s_ij over the visible keys of every segment that holds row i, joined with
// the seed (out, lse) before the first and with (0, sink) after the last. A row that sees nothing: out 0, lse -inf.
struct ForwardParams {
  Shape shape;
  Score score;
  const Segment* segments;  // [segment_count], host memory on CPU, device memory on CUDA
  std::int64_t segment_count;
  ConstView q, k, v;        // dtype
  const void* sink;         // acc [heads], or null
  ConstView seed_out;       // acc [total_q, heads, head_dim_v]; data null: none
  const void* seed_lse;     // acc [heads, total_q] contiguous; null iff seed_out.data is
  View out;                 // [total_q, heads, head_dim_v]
  bool out_is_acc;          // out has the accumulate type (a partial result) instead of dtype
  void* lse;                // acc [heads, total_q] contiguous
  const void* lists;        // of these segments and rows (ListsParams), or null: a GPU builds them for this call
};

// Gradients given the final lse of every row, so that each segment is exact alone:
//
//   D_i = dout_i . out_i - dlse_i;   p_ij = e^(s_ij - lse_i);   dv_j = sum_i p_ij dout_i
//   ds_ij = p_ij (dout_i . v_j - D_i) [1 - (s_ij / softcap)^2];  dq_i = scale sum_j ds_ij k_j;  dk_j = scale sum_i ds_ij q_i
//   dsink_a = - sum_i e^(sink_a - lse_i) D_i
//
// Sums run in a fixed order whatever the number of workers: results are bitwise repeatable. A GPU may add to dq as its blocks
// come, unless `deterministic`.
struct BackwardParams {
  Shape shape;
  Score score;
  const Segment* segments;
  std::int64_t segment_count;
  ConstView q, k, v;     // dtype
  ConstView out, dout;   // [total_q, heads, head_dim_v], dtype, or acc where out_is_acc
  bool out_is_acc;       // out and dout are acc
  const void* lse;       // acc [heads, total_q] contiguous
  const void* dlse;      // acc [heads, total_q] contiguous, or null
  const void* sink;      // acc [heads], or null
  const void* delta;     // acc [heads, total_q]: D
  void* fill_delta;      // delta's memory where it is to be filled first; null: D is given, and out and dlse are not read
  View dq, dk, dv;       // shapes of q, k, v; every row is written, zeros where nothing is seen
  bool grads_are_acc;    // dq, dk, dv have the accumulate type instead of dtype
  void* dsink;           // acc [heads], null iff sink is
  bool deterministic;    // bitwise repeatable, even where another order of sums is faster; on the CPU always so
  const void* lists;     // as in ForwardParams
};

// D of the backward, alone: a ring of ranks computes it once, and gives it to the backward of every hop. A row with
// lse = -inf and out = 0 gets 0, whatever dout and dlse hold.
struct DeltaParams {
  std::int64_t total_q, heads, head_dim_v;
  DType dtype;           // of out and dout; acc follows from it
  ConstView out, dout;   // [total_q, heads, head_dim_v]
  const void *lse, *dlse;  // acc [heads, total_q] contiguous; dlse may be null
  void* delta;           // acc [heads, total_q]
};

constexpr DeltaParams delta_params(const BackwardParams& params) {
  const Shape& s = params.shape;
  const DType acc = s.dtype == DType::float64 ? DType::float64 : DType::float32;
  return {s.total_q,  s.heads,     s.head_dim_v,     params.out_is_acc ? acc : s.dtype, params.out, params.dout,
          params.lse, params.dlse, params.fill_delta};
}

// (out, lse) of the union of two disjoint key sets; lse = ln(e^lse_a + e^lse_b), -inf and -inf give (0, -inf).
struct MergeParams {
  std::int64_t total_q, heads, head_dim_v;
  bool is_double;              // acc is float64
  ConstView out_a, out_b;      // acc [total_q, heads, head_dim_v]
  const void *lse_a, *lse_b;   // acc [heads, total_q] contiguous
  View out;                    // acc
  void* lse;                   // acc
};

}  // namespace hetsp::attention
