// Where everything lies on the way to a work list (tile_list.cuh): rows in blocks of tile_rows, blocks in groups of 64, groups
// in chunks, of which a thread block does one at a time.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/carving.h"
#include "hetsp/attention/cuda/tile.cuh"
#include "hetsp/attention/cuda/tile_list.h"
#include "hetsp/attention/work_list.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cuda {

constexpr int list_threads = 512;  // of a block of these kernels
constexpr int list_warps = list_threads / 32;
constexpr int list_lanes = 8;      // threads that share a segment, or a tile that meets many
constexpr int list_teams = list_threads / list_lanes;
constexpr int words_of_block = static_cast<int>(tile_rows) / 32;
constexpr int group_blocks = 64;
constexpr int chunk_groups_most = list_threads / group_blocks;  // a thread per block of rows
constexpr int powers = 32;                                      // of two, of the steps of a tile
constexpr int narrow = 8;                                       // segments that one thread reads for its tile

// Of one axis: where the numbers on the way to its list lie, all in device memory.
struct AxisList {
  Axis axis;
  std::int64_t rows, blocks, groups, chunks;  // chunks 0: no list of this axis is wanted
  int chunk_groups;
  std::uint32_t* cuts;            // [blocks + 1][words_of_block]: bit r of a block, a tile begins at its row r
  std::int32_t* last_cut;         // [groups] 1 + the last cut, counted from the group's first row; 0: none
  std::int32_t* first;            // [blocks + groups] count - the first segment; 0: none
  std::int32_t* last;             // [blocks + groups] 1 + the last segment; 0: none
  std::int32_t* taken;            // [1] places of `found` given to chunks so far
  Tile* found;                    // [most_tiles] by chunk, by row within
  std::int32_t *base, *number;    // [chunks] the chunk's part of `found`
  std::int32_t* histogram;        // [powers][chunks]
  Tile* tiles;                    // [most_tiles] the list
  std::int32_t* count;            // [1]
};

struct ListBuild {
  const Segment* segments;
  std::int64_t segment_count;
  Shape shape;
  AxisList lists[2];  // of queries, of keys
  std::uint32_t* zeroed;      // cleared first: cuts, marks and the counters of the kernels that walk the lists
  std::int64_t zeroed_words;
};

constexpr int spread_chunks = 256;    // chunks are one group each up to here, then longer: two for each multiprocessor

// `few_chunks`: one block will do them all, so they may be as long as a block takes.
inline ListBuild lay_out(const ListRequest& request, bool few_chunks, Carving& memory) {
  ListBuild build{request.segments, request.segment_count, request.shape, {}, nullptr, 0};
  const std::int64_t before = memory.bytes();
  build.zeroed = memory.take<std::uint32_t>(list_counters);
  for (const Axis axis : {Axis::queries, Axis::keys}) {
    AxisList& list = build.lists[axis == Axis::keys];
    list.axis = axis;
    if (!(axis == Axis::queries ? request.queries : request.keys)) continue;
    list.rows = axis == Axis::queries ? request.shape.total_q : request.shape.total_k;
    list.blocks = ceil_div(list.rows, tile_rows);
    list.groups = ceil_div<std::int64_t>(list.blocks, group_blocks);
    const std::int64_t per_chunk = few_chunks ? chunk_groups_most : ceil_div<std::int64_t>(list.groups, spread_chunks);
    list.chunk_groups = static_cast<int>(smaller<std::int64_t>(larger<std::int64_t>(per_chunk, 1), chunk_groups_most));
    list.chunks = larger<std::int64_t>(ceil_div<std::int64_t>(list.groups, list.chunk_groups), 1);  // one to say "no tiles"
    list.cuts = memory.take<std::uint32_t>((list.blocks + 1) * words_of_block);
    list.last_cut = memory.take<std::int32_t>(list.groups);
    list.first = memory.take<std::int32_t>(list.blocks + list.groups);
    list.last = memory.take<std::int32_t>(list.blocks + list.groups);
    list.taken = memory.take<std::int32_t>(1);
  }
  build.zeroed_words = (memory.bytes() - before) / 4;
  for (AxisList& list : build.lists) {
    if (list.chunks == 0) continue;
    const std::int64_t most = most_tiles(list.rows, request.segment_count);
    list.base = memory.take<std::int32_t>(list.chunks), list.number = memory.take<std::int32_t>(list.chunks);
    list.histogram = memory.take<std::int32_t>(list.chunks * powers);
    list.found = memory.take<Tile>(most), list.tiles = memory.take<Tile>(most);
    list.count = memory.take<std::int32_t>(1);
  }
  return build;
}

}  // namespace hetsp::attention::cuda
