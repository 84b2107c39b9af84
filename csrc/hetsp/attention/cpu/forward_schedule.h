// What a worker of the forward takes at a time: pure data, made from the segments and the shape alone.
//
// A unit is a tile of query rows and a query head. Units that meet the same segments with the same kv head - neighbouring
// tiles, and the query heads that share the kv head - form a batch: each key tile is fetched once for all of them. A large run
// of rows gives one item per batch; of small ones, such as short documents, consecutive batches are gathered with all heads
// until an item is worth its handing out. Grouping changes no bit of the results: a unit's arithmetic is its own.
#pragma once

#include <cstdint>
#include <vector>

#include "hetsp/attention/work_list.h"

namespace hetsp::attention::cpu {

struct ForwardLimits {
  std::int64_t batch_units = 8;                 // most units whose state stays in a cache together
  std::int64_t small_item = std::int64_t{1}
                            << 16;  // pairs of all heads, up to which batches are gathered: 0.1 ms at head_dim 64
  std::int64_t workers = 1;                     // who should find items enough
};

// Tiles [tiles_begin, tiles_end) of the schedule and query heads [heads_begin, heads_end): batches of one run of rows, or whole
// batches of several runs with all heads.
struct ForwardItem {
  std::int64_t tiles_begin, tiles_end;
  std::int64_t heads_begin, heads_end;
};

struct ForwardSchedule {
  std::vector<WorkTile> tiles;         // by row
  std::vector<std::int64_t> segments;  // the lists of the tiles
  std::vector<ForwardItem> items;      // by falling power of two of the pairs, so that the last ones are short
  std::int64_t batch_tiles;            // a batch: at most so many tiles of one run,
  std::int64_t batch_heads;            // and so many query heads of one kv head
};

// `heads` query heads share heads_kv kv heads.
[[nodiscard]] ForwardSchedule forward_schedule(const Segment* segments, std::int64_t count, std::int64_t total_q,
                                               std::int64_t heads, std::int64_t heads_kv, std::int64_t tile_rows,
                                               const ForwardLimits& limits);

// End of the batch of tiles that begins at `begin`: of the same run of rows, at most batch_tiles, before `end`.
[[nodiscard]] std::int64_t batch_end(const ForwardSchedule& schedule, std::int64_t begin, std::int64_t end);

}  // namespace hetsp::attention::cpu
