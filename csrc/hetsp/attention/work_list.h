// The exact work list of a call: which rows meet which segments, cut into tiles, long ones first. Nothing in it depends on
// max_seqlen, on the number of threads or, for segments that share no rows, on the neighbours in the batch.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/attention/segment.h"

namespace hetsp::attention {

enum class Axis { queries, keys };

// Rows [begin, end) of one axis, all covered by the same segments.
struct WorkTile {
  std::int64_t begin, end;
  std::int64_t list_begin, list_end;  // into WorkList::segments
  std::int64_t pairs;                 // visible pairs of these rows: the cost
};

// The axis is cut wherever a segment begins or ends, which gives elementary runs; a run is cut into tiles of at most
// tile_rows, counted from its begin. Rows that no segment covers are runs too, with an empty list: they must be written.
struct WorkList {
  std::vector<WorkTile> tiles;         // by falling power of two of the pairs, by row within: neighbours read the same keys
  std::vector<std::int64_t> segments;  // indices into the caller's list, ascending within a tile
};

// `total` rows along `axis`; segments that are empty on either axis cover nothing.
[[nodiscard]] WorkList work_list(const Segment* segments, std::int64_t count, Axis axis, std::int64_t total,
                                 std::int64_t tile_rows);

// Keys that rows [rows.begin, rows.end) of `segment` see together: one run, in which each key is seen by some row.
constexpr RowRange keys_of_rows(const Segment& segment, RowRange rows) {
  return {visible_keys(segment, rows.begin).begin, visible_keys(segment, rows.end - 1).end};
}

// Query rows that see any of keys [keys.begin, keys.end).
constexpr RowRange rows_of_keys(const Segment& segment, RowRange keys) {
  return {visible_queries(segment, keys.begin).begin, visible_queries(segment, keys.end - 1).end};
}

}  // namespace hetsp::attention
