// The work list of a launch on a GPU: which rows of an axis are computed together, and which segments they meet. It is built
// on the device from segments that only the device sees, and nothing in it depends on max_seqlen.
//
// The axis is cut wherever a segment of tile_rows rows or more begins or ends; between two cuts every tile_rows rows, counted
// from the first. So long documents start at a tile's first row, and short ones share tiles. Every row is in exactly one
// tile, those that no segment holds too: they have to be written.
//
// C++17, host and device.
#pragma once

#include <cstdint>

#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda {

constexpr std::int64_t tile_rows = 128;

struct Tile {                 // of query rows (forward, dq) or of key rows (backward)
  std::int64_t row0;          // first row in the packed tensor
  std::int32_t rows;          // 1 .. tile_rows
  std::int32_t first, last;   // the segments that touch it are among first .. last of the list; first > last: none does
  std::int32_t steps;  // tiles of tile_rows other rows that its rows meet; a key tile: that all keys of its segments do
};

struct TileList {  // device memory, filled on the stream ahead of the kernels that read it
  const Tile* tiles;  // [*count], by falling power of two of `steps`, by row within: the same in every run
  const std::int32_t* count;  // [1]
};

// A bound on *count that the host knows: each begin and each end of a segment adds at most one tile.
constexpr std::int64_t most_tiles(std::int64_t rows, std::int64_t segment_count) {
  const std::int64_t bound = (rows + tile_rows - 1) / tile_rows + 2 * segment_count;
  return bound < rows ? bound : rows;
}

struct ListRequest {
  const Segment* segments;  // [segment_count], device memory
  std::int64_t segment_count;
  Shape shape;
  bool queries, keys;  // which lists are wanted
  bool early = false;  // compute capability 9.0: each kernel is placed while the one ahead of it still runs
};

struct TileLists {
  TileList queries, keys;  // null where not wanted
  std::int32_t* counters;  // [list_counters] zeroed with every build, for the kernels that walk the lists
};
constexpr int list_counters = 4;

// Bytes of device memory that a build wants and leaves its result in.
[[nodiscard]] std::int64_t tile_list_bytes(const ListRequest& request);

// Queues the build on `stream`, a cudaStream_t. One block does it in one launch, or a grid in four, whichever is faster.
enum class ListPath { choose, one_block, grid };
TileLists build_tile_lists(const ListRequest& request, void* memory, void* stream, ListPath path = ListPath::choose);

// Where an earlier build of the same request has left its lists. Its counters are used up.
[[nodiscard]] TileLists built_tile_lists(const ListRequest& request, const void* memory);

}  // namespace hetsp::attention::cuda
