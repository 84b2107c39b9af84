// A segment as a band: seen from its query rows or from its key rows the mask has one form, so one walk serves the forward,
// dq (own rows are queries, the others keys) and dk, dv (own rows are keys).
//
// Own row r of a tile sees columns [r + low, r + high) of a tile of other rows, cut to [0, count), if the segment holds it. Two
// numbers stand for the mask of a whole step, and a warp knows without looking whether its rows see all of it, or nothing.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda/tile_list.h"

namespace hetsp::attention::cuda::mma {

// One tile of own rows against one tile of other rows. Numbers relative to the tiles' first rows.
struct Step {
  std::int64_t other0;  // first row of the other tile
  std::int32_t head;  // query head
  std::int32_t skip, count;  // other rows [skip, count) are seen by some own row; count 0: there is no step any more
  std::int32_t low, high;  // see above
  std::int32_t own_begin, own_end;

  // The same for columns [first, first + columns) of the tile alone.
  __device__ Step from(int first, int columns) const {
    return {other0 + first, head, 0, smaller(count - first, columns), low - first, high - first, own_begin, own_end};
  }
  __device__ Run run(int row) const {
    if (row < own_begin || row >= own_end) return {0, 0};
    return {larger(row + low, 0), smaller(row + high, count)};
  }
  // Of rows [row, row + rows) and `columns` columns: nobody sees anything; everybody sees everything.
  __device__ bool none(int row, int rows) const {
    const int last = smaller(row + rows, own_end) - 1;
    const int first = larger(row, own_begin);
    return first > last || last + high <= 0 || first + low >= count;
  }
  __device__ bool all(int row, int rows, int columns) const {
    return row >= own_begin && row + rows <= own_end && row + rows - 1 + low <= 0 && row + high >= columns && count == columns;
  }
};

// The steps of an item, one after another: segments in list order, for own keys the query heads of the group, tiles of
// `Columns` other rows counted from the segment's first. One thread walks and leaves the steps in shared memory for all.
template <bool OwnKeys, int Columns>
struct Walk {
  std::int64_t own0, other_begin, other_end, next;  // `next`: first row of the tile that comes next
  std::int64_t diagonal;  // the other row at distance 0 from own row own0
  std::int64_t before, after;  // other rows seen before and behind it; -1: all
  std::int32_t rows, segment, last, own_begin, own_end;
  std::int32_t head, head_begin, head_end;  // of the query heads
  std::int64_t first_tile;

  __device__ void begin(const Tile& tile, int own_rows_from, int own_rows, int first_head, int heads) {
    own0 = tile.row0 + own_rows_from, rows = own_rows;
    segment = tile.first - 1, last = tile.last;
    head = head_begin = first_head, head_end = first_head + heads;
    head = head_end - 1, next = other_end = 0;  // as if a segment had just ended
  }

  // Takes in one segment; false where it misses the tile.
  __device__ bool enter(const Segment& s) {
    const std::int64_t begin = OwnKeys ? s.k_begin : s.q_begin, end = OwnKeys ? s.k_end : s.q_end;
    const std::int64_t from = larger(own0, begin), to = smaller(own0 + rows, end) - 1;
    if (from > to) return false;
    const RowRange first = OwnKeys ? visible_queries(s, from) : visible_keys(s, from);
    const RowRange final = OwnKeys ? visible_queries(s, to) : visible_keys(s, to);
    other_begin = first.begin, other_end = final.end;
    if (other_begin >= other_end) return false;
    const std::int64_t origin = OwnKeys ? s.q_begin : s.k_begin;
    first_tile = other_begin - (other_begin - origin) % Columns;
    const std::int64_t shift = s.q_pos0 - s.q_begin - s.k_pos0 + s.k_begin;
    diagonal = OwnKeys ? own0 - shift : own0 + shift;
    before = OwnKeys ? s.right : s.left, after = OwnKeys ? s.left : s.right;
    own_begin = static_cast<std::int32_t>(from - own0), own_end = static_cast<std::int32_t>(to + 1 - own0);
    return true;
  }

  __device__ void advance(const Segment* segments, const Shape& shape, Step& step) {
    if (next >= other_end) {
      if (head + 1 < head_end) {
        ++head;
      } else {
        do {
          if (++segment > last) {
            step = {};
            segment = last;  // calls beyond the end find it again
            return;
          }
        } while (!enter(clamped(segments[segment], shape)));
        head = head_begin;
      }
      next = first_tile;
    }
    constexpr std::int64_t far = 1 << 28;
    const auto near = [&](std::int64_t x) { return static_cast<std::int32_t>(smaller(larger(x, -far), far)); };
    step.other0 = next, step.head = head;
    step.skip = static_cast<std::int32_t>(larger<std::int64_t>(other_begin - next, 0));
    step.count = static_cast<std::int32_t>(smaller<std::int64_t>(other_end - next, Columns));
    step.low = before < 0 ? -static_cast<std::int32_t>(far) : near(diagonal - before - next);
    step.high = after < 0 ? static_cast<std::int32_t>(far) : near(diagonal + after + 1 - next);
    step.own_begin = own_begin, step.own_end = own_end;
    next += Columns;
  }
};

}  // namespace hetsp::attention::cuda::mma
