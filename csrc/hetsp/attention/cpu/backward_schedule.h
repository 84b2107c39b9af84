// Who computes what in the backward's one pass, from the segments alone: pure, and the same for any number of threads.
//
// The query rows of a component (components.h), in tiles and in row order, are cut into ranges of about equal numbers of
// visible pairs. A range and some kv heads are an item: its worker finishes dq of its rows, and sums dk and dv of the keys that
// its rows see in a slab of the accumulate type, one row per key. Where a component has one range, the slab is the worker's
// own, used again by the next item, and the item stores dk and dv. Where it has several, each range and kv head has a slab in
// the workspace, and a second pass adds them in range order.
//
// How many ranges a component has depends on nothing but its own segments and heads (BackwardLimits).
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/attention/work_list.h"

namespace hetsp::attention::cpu {

struct BackwardLimits {
  std::int64_t workers = 32;  // a component is cut until its ranges and kv heads occupy so many,
  std::int64_t range_pairs = std::int64_t{4} << 20;  // while each keeps so many pairs, times the query heads of a kv head:
                                                     // 2.7 gigaflop at head_dim 64
  // and while all its slabs have at most slab_share rows for each of its keys, or half of that beyond many_keys: a bound on the
  // workspace. Causal attention needs 2/3 of what full attention does, a window hardly more than one row.
  std::int64_t slab_share = 4, many_keys = std::int64_t{256} << 10;
  std::int64_t group_units = 8;  // query tiles, times heads of a kv head, that go together
  std::int64_t small_item = std::int64_t{1} << 15;  // pairs of all heads, up to which short components are one item
};

// Key rows [begin, end) lie in the slab's rows from `slab` on.
struct KeyRun {
  std::int64_t begin, end, slab;
};

struct QueryRange {
  std::int64_t tiles_begin, tiles_end;  // into `tiles`
  std::int64_t runs_begin, runs_end;  // into `runs`: ascending, apart, together the keys that some row of the range sees
  std::int64_t pairs;
  std::int64_t slab_rows;  // of all runs
  bool met_once;  // all rows go together and meet one segment: each key tile is done after one turn
  std::int64_t workspace_row;  // where the slab of the first kv head begins, the others behind it; -1: the worker's own
};

// One range and kv head; or all heads of ranges that follow each other, each of a short component.
struct BackwardItem {
  std::int64_t ranges_begin, ranges_end;
  std::int64_t heads_begin, heads_end;  // kv heads
};

// Keys of a component of several ranges, all of them; a chunk and a kv head are an item of the second pass.
struct SplitKeys {
  RowRange keys;
  std::int64_t ranges_begin, ranges_end;
};

struct BackwardSchedule {
  std::vector<WorkTile> tiles;  // by component, by row within; tiles that no segment covers are left out
  std::vector<std::int64_t> segments;  // the lists of the tiles
  std::vector<KeyRun> runs;
  std::vector<QueryRange> ranges;  // those of one component follow each other
  std::vector<BackwardItem> items;  // by falling power of two of the work
  std::vector<SplitKeys> splits;
  std::vector<RowRange> idle_rows, idle_keys;  // seen by nobody: zeros
  std::int64_t scratch_rows = 0;  // of the largest slab of a worker: of a tile of keys, or of a range that is not met_once
  std::int64_t workspace_rows = 0;  // of all slabs in the workspace
};

// `heads` query heads share heads_kv kv heads.
[[nodiscard]] BackwardSchedule backward_schedule(const Segment* segments, std::int64_t count, std::int64_t total_q,
                                                 std::int64_t total_k, std::int64_t heads, std::int64_t heads_kv,
                                                 std::int64_t tile_rows, const BackwardLimits& limits = {});

}  // namespace hetsp::attention::cpu
