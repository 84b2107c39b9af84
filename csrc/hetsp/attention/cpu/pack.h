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

// Which keys of tile `keys` each row of tile `rows` (at least one) sees.
inline void fill_mask(const Segment& segment, RowRange rows, RowRange keys, TileMask& mask) {
  const std::int64_t count = keys.end - keys.begin;
  std::int64_t lane = 0;
  mask.cut = false;
  mask.widest = 0;
  for (std::int64_t r = rows.begin; r < rows.end; ++r, ++lane) {
    const RowRange seen = visible_keys(segment, r);
    mask.low[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(seen.begin - keys.begin, 0, count));
    mask.high[lane] = static_cast<std::int32_t>(std::clamp<std::int64_t>(seen.end - keys.begin, 0, count));
    mask.cut |= mask.low[lane] > 0 || mask.high[lane] < count;
    mask.widest = std::max(mask.widest, mask.high[lane] - mask.low[lane]);
  }
  for (; lane < kTile; ++lane) mask.low[lane] = mask.low[lane - 1], mask.high[lane] = mask.high[lane - 1];
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
