// Where rows lie in a tensor of any strides, how ranges are cut into tiles, and what a tile's rows see.
#pragma once

#include <algorithm>
#include <cstdint>

#include "hetsp/attention/cpu/tile_math.h"
#include "hetsp/attention/params.h"
#include "hetsp/attention/segment.h"
#include "hetsp/attention/softmax_state.h"

namespace hetsp::attention::cpu {

// The row of `token` and `head`: [dim] elements.
template <class Element>
const Element* row(const ConstView& view, std::int64_t token, std::int64_t head) {
  return static_cast<const Element*>(view.data) + token * view.token_stride + head * view.head_stride;
}
template <class Element>
Element* row(const View& view, std::int64_t token, std::int64_t head) {
  return static_cast<Element*>(view.data) + token * view.token_stride + head * view.head_stride;
}

// Of a tensor of this many bytes little is in any cache when it is read again. Written past them, 256 documents of 32 tokens
// took 17 % less time, forward and backward (float32, 8 heads of 64: 17 MB a tensor; Zen 5).
constexpr std::int64_t kStreamedBytes = std::int64_t{8} << 20;
template <class T>
constexpr Store store_of(std::int64_t rows, std::int64_t heads, std::int64_t dim) {
  return rows * heads * dim * static_cast<std::int64_t>(sizeof(T)) >= kStreamedBytes ? Store::streamed : Store::cached;
}

// edge[lane] = rows_from + lane for bounds that move with the row, else rows_from, within [0, count].
inline void fill_edge(std::int64_t rows_from, bool moves, std::int32_t rows, std::int32_t count, std::int32_t* edge) {
  const auto from = static_cast<std::int32_t>(std::clamp<std::int64_t>(rows_from, -kTile, count));
  const std::int32_t step = moves ? 1 : 0;
  for (std::int32_t lane = 0; lane < kTile; ++lane) edge[lane] = std::clamp(from + step * std::min(lane, rows - 1), 0, count);
}

// Which keys of tile `keys` each row of tile `rows` (at least one, at most kTile) sees; returns whether any sees any.
inline bool fill_mask(const Segment& segment, RowRange rows, RowRange keys, TileMask& mask) {
  const auto count = static_cast<std::int32_t>(keys.end - keys.begin), lanes = static_cast<std::int32_t>(rows.end - rows.begin);
  const RowRange first = visible_keys(segment, rows.begin), last = visible_keys(segment, rows.end - 1);
  mask.cut = last.begin > keys.begin || first.end < keys.end;
  mask.widest = count;
  if (!mask.cut) return true;
  // A bound of row i, unless the segment's own end stops it, is that of row 0 plus i. Taken before that stop, it moves with the
  // row throughout; what lies beyond the segment's keys is beyond the tile too, and clamped.
  const std::int64_t shift = segment.q_pos0 + (rows.begin - segment.q_begin) - segment.k_pos0 + segment.k_begin;
  const bool left = segment.left >= 0, right = segment.right >= 0;
  fill_edge(left ? shift - segment.left - keys.begin : 0, left, lanes, count, mask.low);
  fill_edge(right ? shift + segment.right + 1 - keys.begin : count, right, lanes, count, mask.high);
  mask.widest = 0;
  for (std::int32_t lane = 0; lane < lanes; ++lane) mask.widest = std::max(mask.widest, mask.high[lane] - mask.low[lane]);
  return first.begin < keys.end && last.end > keys.begin && first.begin < last.end;
}

// Calls body(tile) for the tiles of `range`, which are counted from `origin` (<= range.begin) and not from the range: the
// cuts, and so the rounding, do not depend on who asks.
template <class Body>
void for_each_tile(std::int64_t origin, RowRange range, const Body& body) {
  for (std::int64_t begin = range.begin; begin < range.end;) {
    const std::int64_t end = std::min(origin + ((begin - origin) / kTile + 1) * kTile, range.end);
    body(RowRange{begin, end});
    begin = end;
  }
}

// Factors of the scores. Without softcap q is scaled so that q . k is the score in base 2; with it, to score / softcap.
struct ScoreFactors {
  double q, cap;
};
inline ScoreFactors score_factors(const Score& score) {
  if (score.softcap > 0) return {score.softmax_scale / score.softcap, score.softcap * kLog2E};
  return {score.softmax_scale * kLog2E, 0.0};
}

}  // namespace hetsp::attention::cpu
