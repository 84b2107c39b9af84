// Attention to keys that lie in several pieces, each behind its own pointers and perhaps still on its way: a chain of seeded
// forwards (params.h: seeds), one link a piece, in list order whatever the order of arrival. See docs/attention_pieces.md.
//
// The axis of keys is that of all pieces one after another; segments are on it and may reach over several pieces.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>
#include <stdexcept>

#include "hetsp/attention/params.h"

namespace hetsp::attention {

struct KeyPiece {
  ConstView k, v;              // [rows, heads_kv, head_dim], [rows, heads_kv, head_dim_v]
  std::int64_t rows;
  const std::uint32_t* ready;  // the flag that says that it has arrived, where the kernel can read it; null: it is here
  std::uint32_t epoch;         // what the flag has to reach
};

constexpr int most_pieces = 16;

struct PiecesParams {
  ForwardParams call;        // of the whole: shape.total_k counts the rows of all pieces; k and v are not read
  const KeyPiece* pieces;    // [count], host memory
  int count;                 // 1 .. most_pieces
  std::int64_t patience_ns;  // the longest wait for one piece
  std::int32_t* late;        // [1], becomes 1 + a piece that did not come in time, or 0; then out and lse are NaN on a GPU
};

// Flags count up, from step to step, and wrap.
constexpr bool has_arrived(std::uint32_t flag, std::uint32_t epoch) { return static_cast<std::int32_t>(flag - epoch) >= 0; }

// The part of `segment` whose keys are rows [begin, begin + rows) of the axis of all pieces, in rows of that piece. Which of
// those keys a row sees stays as it was. A segment without any has no keys then, at row 0.
constexpr Segment cut_to_piece(Segment segment, std::int64_t begin, std::int64_t rows) {
  segment.k_begin -= begin, segment.k_end -= begin;
  if (segment.k_begin < 0) segment.k_pos0 -= segment.k_begin, segment.k_begin = 0;
  if (segment.k_end > rows) segment.k_end = rows;
  if (segment.k_end <= segment.k_begin) segment.k_begin = segment.k_end = 0;
  return segment;
}

// Where the results of links but the last lie: out itself, if that has the accumulate type.
constexpr bool needs_memory_between(const PiecesParams& params) { return params.count > 1 && !params.call.out_is_acc; }

// The forward that link `index` is. `segments`: the call's, cut to its piece; `between`: [total_q, heads, head_dim_v] of the
// accumulate type, for needs_memory_between(). Links are in place: a row's seed is read before its result is written.
constexpr ForwardParams link_of(const PiecesParams& params, int index, const Segment* segments, const View& between) {
  const bool first = index == 0, last = index == params.count - 1;
  const View& kept = needs_memory_between(params) ? between : params.call.out;
  ForwardParams link = params.call;
  link.shape.total_k = params.pieces[index].rows;
  link.k = params.pieces[index].k, link.v = params.pieces[index].v;
  link.segments = segments;
  link.lists = nullptr;
  if (!first) link.seed_out = {kept.data, kept.token_stride, kept.head_stride}, link.seed_lse = params.call.lse;
  if (!last) link.out = kept, link.out_is_acc = true, link.sink = nullptr;
  return link;
}

// Whether a tile that sees no key of the piece may pass the link over: its rows are what the links before have left.
constexpr bool may_pass_over(const PiecesParams& params, int index) {
  return index > 0 && (index < params.count - 1 || (params.call.out_is_acc && params.call.sink == nullptr));
}

// A piece did not come within the call's patience. Reaches Python as hetsp_ext.errors.NotArrived.
class NotArrived : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace hetsp::attention
