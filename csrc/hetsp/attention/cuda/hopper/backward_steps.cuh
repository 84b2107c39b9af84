// The steps of one item of the backward, a tile of up to 128 keys of one key head: every query tile of every query head that
// shares the keys, segment by segment. The producer walks them; the consumers learn of a step from its record in shared memory.
//
// All in 32 bits, since the walk has 24 registers: tensors have fewer than 2^30 rows, and distances beyond that are cut to it.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

// What a record asks for. A run is the steps of one segment: K and, in the item's first run, V arrive before its first step.
enum StepFlags : int {
  step_masked = 1,  // some of the pairs are hidden
  step_cut_rows = 2,  // Q and dO are to be zeroed outside `rows`: those are another document's
  step_cut_keys = 4,  // so is K, outside `keys`
  step_begins_run = 8,
  step_loads_v = 16,
  step_ends_run = 32,
  step_finishes = 64,  // no tile: the item is complete, dK and dV are to be written
  step_stops = 128,  // no tile: no more items
};

struct Range {  // of a tile's rows
  std::int16_t begin, end;
};

// Key x of the key tile sees those of `rows` that lie in [x + low, x + high), if it is one of `keys`. Of an item's end: row0
// and head of its keys, and `rows` are those that exist.
struct alignas(16) Step {
  std::int32_t row0, head;  // of the query tile
  std::int32_t flags;
  Range rows, keys;
  std::int32_t low, high;
};

// The rows that a key row sees of a segment are those of [q_begin, q_end) in [key + low, key + high).
struct Band {
  std::int32_t q_begin, q_end, k_begin, k_end, low, high;
};

__device__ inline Band band_of(const Segment& segment, const Shape& shape) {
  constexpr std::int64_t far = std::int64_t{1} << 30;
  const auto cut = [](std::int64_t x, std::int64_t least, std::int64_t most) {
    return static_cast<std::int32_t>(smaller(larger(x, least), most));
  };
  // Query row minus key row at distance 0; rows cut off outside the tensors do not change it.
  const std::int64_t level = segment.k_pos0 - segment.k_begin - segment.q_pos0 + segment.q_begin;
  Band band;
  band.low = segment.right < 0 ? static_cast<std::int32_t>(-far) : cut(level - segment.right, -far, far);
  band.high = segment.left < 0 ? static_cast<std::int32_t>(far) : cut(level + segment.left + 1, -far, far);
  band.q_begin = cut(segment.q_begin, 0, far), band.q_end = cut(segment.q_end, 0, shape.total_q);
  band.k_begin = cut(segment.k_begin, 0, far), band.k_end = cut(segment.k_end, 0, shape.total_k);
  return band;
}

// Calls emit(step) for each. Query tiles have `Rows` rows, counted from the segment's first query; the key tile has `Keys`.
template <int Rows, int Keys = static_cast<int>(tile_rows), class Emit>
__device__ inline void walk_band(const Band& band, std::int32_t key0, std::int32_t keys, int head0, int share,
                                 const Emit& emit) {
  const std::int32_t first = larger(key0, band.k_begin), end = smaller(key0 + keys, band.k_end);
  if (first >= end || band.q_begin >= band.q_end) return;
  const std::int32_t rows_begin = larger(band.q_begin, first + band.low), rows_end = smaller(band.q_end, end - 1 + band.high);
  const std::int32_t seen_begin = larger(first, band.q_begin - band.high + 1), seen_end = smaller(end, band.q_end - band.low);
  if (rows_begin >= rows_end || seen_begin >= seen_end) return;
  Step step;
  step.keys = {static_cast<std::int16_t>(seen_begin - key0), static_cast<std::int16_t>(seen_end - key0)};
  const bool cut_keys = step.keys.begin > 0 || step.keys.end < Keys;
  int flags = step_begins_run | (cut_keys ? step_masked | step_cut_keys : 0);
  const std::int32_t begin = rows_begin - (rows_begin - band.q_begin) % Rows;
  for (step.head = head0; step.head < head0 + share; ++step.head)
    for (step.row0 = begin; step.row0 < rows_end; step.row0 += Rows) {
      constexpr std::int32_t far = 1 << 20;  // beyond any distance within a tile
      step.rows.begin = static_cast<std::int16_t>(larger(rows_begin - step.row0, 0));
      step.rows.end = static_cast<std::int16_t>(smaller(rows_end - step.row0, Rows));
      step.low = larger(key0 + band.low - step.row0, -far), step.high = smaller(key0 + band.high - step.row0, far);
      step.flags = flags;
      if (step.low + Keys - 1 > 0 || step.high < Rows) step.flags |= step_masked;
      if (step.rows.begin > 0 || step.rows.end < Rows) step.flags |= step_masked | step_cut_rows;
      if (step.head + 1 == head0 + share && step.row0 + Rows >= rows_end) step.flags |= step_ends_run;
      emit(step);
      flags &= step_masked;
    }
}

}  // namespace hetsp::attention::cuda::hopper
