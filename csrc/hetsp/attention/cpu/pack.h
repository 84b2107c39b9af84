// Between tensors (any dtype, any strides) and tiles (accumulate type, contiguous, zero-filled): nothing outside the
// rows asked for is read, so a NaN in an unused tail or in the next document cannot enter.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cpu/element.h"
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

// tile [tokens][dim_pad] = tokens [range) of `head`; columns from dim on are 0.
template <class Element, class Acc>
void load(const ConstView& view, RowRange range, std::int64_t head, std::int64_t dim, std::int64_t dim_pad, Acc* tile) {
  for (std::int64_t token = range.begin; token < range.end; ++token, tile += dim_pad) {
    const Element* from = row<Element>(view, token, head);
    for (std::int64_t i = 0; i < dim; ++i) tile[i] = widen(from[i]);
    for (std::int64_t i = dim; i < dim_pad; ++i) tile[i] = 0;
  }
}

// [rows][dim_pad] -> [dim][kTile] times `factor`; lanes from rows to `lanes` are 0. The product is rounded once, from double.
template <class Acc>
void transpose(const Acc* tile, std::int64_t rows, std::int64_t lanes, std::int64_t dim, std::int64_t dim_pad, double factor,
               Acc* transposed) {
  for (std::int64_t i = 0; i < dim; ++i) {
    Acc* to = transposed + i * kTile;
    for (std::int64_t lane = 0; lane < rows; ++lane) to[lane] = static_cast<Acc>(tile[lane * dim_pad + i] * factor);
    for (std::int64_t lane = rows; lane < lanes; ++lane) to[lane] = 0;
  }
}

template <class Acc>
bool has_nonfinite(const Acc* data, std::int64_t count) {
  using Bits = std::conditional_t<sizeof(Acc) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits kExponent = sizeof(Acc) == 4 ? Bits{0x7f800000} : static_cast<Bits>(0x7ff0000000000000);
  Bits found = 0;
  for (std::int64_t i = 0; i < count; ++i) found |= static_cast<Bits>((std::bit_cast<Bits>(data[i]) & kExponent) == kExponent);
  return found != 0;
}

// Which keys of tile `keys` each row of tile `rows` sees.
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
  for (; lane < kTile; ++lane) mask.low[lane] = 0, mask.high[lane] = static_cast<std::int32_t>(count);
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
