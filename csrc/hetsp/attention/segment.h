// A segment is one rectangle of an attention problem: a run of query rows against a run of key rows, with the positions
// that say which pairs are visible. cu_seqlens, pieces of a zigzag, windows and shared prefixes are all lists of segments.
//
// C++17: this header is also compiled by nvcc.
#pragma once

#include <cstdint>

namespace hetsp::attention {

// Rows are token indices into the packed tensors; positions are token indices inside the document. Row q_begin + i sits at
// position q_pos0 + i, row k_begin + j at position k_pos0 + j. A key is visible iff
//
//   -left <= key position - query position <= right,      left or right = -1: unbounded on that side.
//
// Causal is right = 0. Bottom-right alignment (flash-attn's convention) is q_pos0 = keys - queries, k_pos0 = 0.
// Segments may share queries or keys; contributions then combine in list order.
struct Segment {
  std::int64_t q_begin, q_end;  // query rows [q_begin, q_end)
  std::int64_t k_begin, k_end;  // key rows [k_begin, k_end)
  std::int64_t q_pos0, k_pos0;
  std::int64_t left, right;     // tokens, or -1
};

struct RowRange {
  std::int64_t begin, end;  // empty iff begin >= end
};

// Keys of `segment` that query row `row` sees: always one run, so a mask never needs a bit per pair.
constexpr RowRange visible_keys(const Segment& segment, std::int64_t row) {
  const std::int64_t shift =
      segment.q_pos0 + (row - segment.q_begin) - segment.k_pos0 + segment.k_begin;  // key row at distance 0
  std::int64_t begin = segment.k_begin, end = segment.k_end;
  if (segment.left >= 0 && shift - segment.left > begin) begin = shift - segment.left;
  if (segment.right >= 0 && shift + segment.right + 1 < end) end = shift + segment.right + 1;
  return {begin, end};
}

// Query rows of `segment` that see key row `key`: also one run.
constexpr RowRange visible_queries(const Segment& segment, std::int64_t key) {
  const std::int64_t shift =
      segment.k_pos0 + (key - segment.k_begin) - segment.q_pos0 + segment.q_begin;  // query row at distance 0
  std::int64_t begin = segment.q_begin, end = segment.q_end;
  if (segment.right >= 0 && shift - segment.right > begin) begin = shift - segment.right;
  if (segment.left >= 0 && shift + segment.left + 1 < end) end = shift + segment.left + 1;
  return {begin, end};
}

// Number of visible (query, key) pairs of the segment: the unit of attention work.
[[nodiscard]] std::int64_t visible_pairs(const Segment& segment);

}  // namespace hetsp::attention
