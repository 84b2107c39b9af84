// The second phase of tile_list.cuh: a chunk's tiles, each with the segments that it meets and its steps.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile_list_layout.cuh"
#include "hetsp/attention/cuda/warp_scan.cuh"

namespace hetsp::attention::cuda {

// What rows [row0, row0 + rows) meet among some segments: a value that parts of the list are joined into.
struct Meeting {
  std::int64_t steps = 0;
  std::int32_t first = 0x7fffffff, last = -1;

  __device__ void join(const Meeting& other) {
    steps += other.steps;
    first = smaller(first, other.first), last = larger(last, other.last);
  }

  __device__ void meet(const Segment& segment, std::int32_t index, Axis axis, RowRange tile) {
    const bool by_query = axis == Axis::queries;
    const RowRange rows{larger(tile.begin, by_query ? segment.q_begin : segment.k_begin),
                        smaller(tile.end, by_query ? segment.q_end : segment.k_end)};
    if (rows.begin >= rows.end || segment.q_begin >= segment.q_end || segment.k_begin >= segment.k_end) return;
    const RowRange others = by_query ? keys_of_rows(segment, rows) : rows_of_keys(segment, {segment.k_begin, segment.k_end});
    const std::int64_t origin = by_query ? segment.k_begin : segment.q_begin;
    if (others.begin < others.end) steps += (others.end - 1 - origin) / tile_rows - (others.begin - origin) / tile_rows + 1;
    first = smaller(first, index), last = larger(last, index);
  }
};

struct FindShared {
  std::int32_t of_warp[list_warps];
  Meeting part[list_threads];
  std::int32_t queue[list_threads];  // tiles that meet too many segments for one thread
  std::int32_t histogram[powers];
  std::int32_t queued, base, last_cut_group;
};

struct Scanned {
  std::int32_t before, all;  // of the threads before this one, and of all
};

// Joins a value of each thread; 0 joins as nothing.
template <class Join>
__device__ Scanned scan(std::int32_t value, std::int32_t (&of_warp)[list_warps], Join join) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const WarpScanned own = warp_scan(value, join);
  if (lane == 31) of_warp[warp] = own.through;
  __syncthreads();
  Scanned result{own.before, 0};
#pragma unroll
  for (int w = 0; w < list_warps; ++w) {
    if (w == warp) result.before = join(result.all, own.before);
    result.all = join(result.all, of_warp[w]);
  }
  __syncthreads();
  return result;
}

// Position in its block, 0 .. tile_rows - 1, of the last cut before the chunk: tiles keep its distance from block to block.
__device__ inline int phase_before(const AxisList& list, std::int64_t first_group, FindShared& shared) {
  if (first_group == 0) return 0;
  if (threadIdx.x == 0) shared.last_cut_group = -1;
  __syncthreads();
  for (std::int64_t end = first_group; end > 0; end -= list_threads) {
    const std::int64_t group = end - 1 - threadIdx.x;
    if (group >= 0 && list.last_cut[group] != 0) atomicMax(&shared.last_cut_group, static_cast<std::int32_t>(group));
    __syncthreads();
    const bool found = shared.last_cut_group >= 0;
    __syncthreads();
    if (found) break;
  }
  const std::int32_t group = shared.last_cut_group;
  return group < 0 ? 0 : (list.last_cut[group] - 1) % static_cast<int>(tile_rows);
}

// The rows of a block where tiles begin.
struct Starts {
  std::uint32_t word[words_of_block];

  __device__ int count() const {
    int sum = 0;
    for (const std::uint32_t bits : word) sum += __popc(bits);
    return sum;
  }
  __device__ int last() const {  // -1: none
    int row = -1;
#pragma unroll
    for (int w = 0; w < words_of_block; ++w)
      if (word[w] != 0) row = 32 * w + 31 - __clz(static_cast<int>(word[w]));
    return row;
  }
  __device__ int next(int from) const {  // the first at `from` or later; tile_rows: none
    int row = static_cast<int>(tile_rows);
#pragma unroll
    for (int w = words_of_block - 1; w >= 0; --w) {
      const int skipped = from - 32 * w;
      const std::uint32_t bits = skipped >= 32 ? 0 : skipped <= 0 ? word[w] : word[w] & (~0u << skipped);
      if (bits != 0) row = 32 * w + __ffs(static_cast<int>(bits)) - 1;
    }
    return row;
  }
  __device__ void add(int row) {
#pragma unroll
    for (int w = 0; w < words_of_block; ++w)
      if (w == row / 32) word[w] |= 1u << (row % 32);
  }
};

__device__ inline Starts cuts_of(const AxisList& list, std::int64_t block) {
  Starts starts;
  for (int w = 0; w < words_of_block; ++w) starts.word[w] = list.cuts[block * words_of_block + w];
  return starts;
}

// Writes the rows of the chunk's tiles to list.found and returns how many there are.
__device__ inline int cut_chunk(const AxisList& list, std::int64_t chunk, FindShared& shared) {
  const int t = static_cast<int>(threadIdx.x);
  const std::int64_t first_group = chunk * list.chunk_groups, block0 = first_group * group_blocks;
  const int count = static_cast<int>(smaller<std::int64_t>(list.blocks - block0, list.chunk_groups * group_blocks));
  const int phase = phase_before(list, first_group, shared);
  const std::int64_t block = block0 + t;
  const bool mine = t < count;
  Starts starts{}, behind{};
  if (mine) starts = cuts_of(list, block), behind = cuts_of(list, block + 1);
  const int own = mine ? starts.last() : -1;
  const std::int32_t last_cut = own < 0 ? 0 : t * static_cast<int>(tile_rows) + own + 1;
  const std::int32_t before =
      scan(last_cut, shared.of_warp, [](std::int32_t a, std::int32_t b) { return larger(a, b); }).before;
  const int continued = before == 0 ? phase : (before - 1) % static_cast<int>(tile_rows);
  if (mine && starts.next(0) > continued && block * tile_rows + continued < list.rows) starts.add(continued);
  const auto [offset, total] = scan(starts.count(), shared.of_warp, [](std::int32_t a, std::int32_t b) { return a + b; });
  if (t == 0) {
    shared.base = list.chunks > 1 && total > 0 ? atomicAdd(list.taken, total) : 0;
    list.base[chunk] = shared.base, list.number[chunk] = total;
  }
  __syncthreads();
  if (!mine) return total;
  const std::int64_t beyond = tile_rows + behind.next(0);
  Tile* tile = list.found + shared.base + offset;
  for (int start = starts.next(0); start < static_cast<int>(tile_rows); ++tile) {
    const int next = starts.next(start + 1);
    const std::int64_t row0 = block * tile_rows + start;
    std::int64_t end = next < static_cast<int>(tile_rows) ? next : beyond;
    end = smaller(smaller(block * tile_rows + end, row0 + tile_rows), list.rows);
    *tile = {row0, static_cast<std::int32_t>(end - row0), 0, -1, 0};
    start = next;
  }
  return total;
}

// The segments that touch the blocks of a tile: a range that holds all that touch the tile.
__device__ inline SegmentRange marked(const AxisList& list, const Tile& tile, std::int32_t count) {
  std::int32_t first = 0, last = 0;
  const auto look = [&](std::int64_t place) {
    first = larger(first, list.first[place]), last = larger(last, list.last[place]);
  };
  const std::int64_t begin = tile.row0 / tile_rows, end = (tile.row0 + tile.rows - 1) / tile_rows;
  look(begin), look(end), look(list.blocks + begin / group_blocks), look(list.blocks + end / group_blocks);
  return {count - first, last - 1};
}

__device__ inline void finish_tile(Tile& tile, const Meeting& meeting, FindShared& shared) {
  const std::int64_t steps = smaller<std::int64_t>(meeting.steps, 0x7fffffff);
  const bool none = meeting.last < 0;
  tile.first = none ? 0 : meeting.first, tile.last = meeting.last, tile.steps = static_cast<std::int32_t>(steps);
  atomicAdd(&shared.histogram[__clz(tile.steps) - 1], 1);
}

__device__ inline void meet_range(const ListBuild& build, const AxisList& list, const Tile& tile, SegmentRange range, int step,
                                  Meeting& meeting) {
  if (range.first > range.last) return;
  Segment next = build.segments[range.first];
  for (std::int64_t i = range.first; i <= range.last; i += step) {
    const Segment segment = next;
    if (i + step <= range.last) next = build.segments[i + step];  // on its way while this one is met
    meeting.meet(clamped(segment, build.shape), static_cast<std::int32_t>(i), list.axis, {tile.row0, tile.row0 + tile.rows});
  }
}

// Segments and steps of `total` tiles of the chunk: a thread each where few segments are near, else list_lanes threads.
__device__ inline void meet_segments(const ListBuild& build, const AxisList& list, int total, FindShared& shared) {
  const int t = static_cast<int>(threadIdx.x), team = t / list_lanes, lane = t % list_lanes;
  const auto count = static_cast<std::int32_t>(build.segment_count);
  Tile* const tiles = list.found + shared.base;
  for (int begin = 0; begin < total; begin += list_threads) {
    if (t == 0) shared.queued = 0;
    __syncthreads();
    if (begin + t < total) {
      Tile& tile = tiles[begin + t];
      const SegmentRange range = marked(list, tile, count);
      if (range.last - range.first < narrow) {
        Meeting meeting;
        meet_range(build, list, tile, range, 1, meeting);
        finish_tile(tile, meeting, shared);
      } else {
        shared.queue[atomicAdd(&shared.queued, 1)] = begin + t;
      }
    }
    __syncthreads();
    const int queued = shared.queued;
    for (int turn = 0; turn < queued; turn += list_teams) {
      const bool busy = turn + team < queued;
      Meeting meeting;
      if (busy) {
        const Tile& tile = tiles[shared.queue[turn + team]];
        const SegmentRange range = marked(list, tile, count);
        meet_range(build, list, tile, {range.first + lane, range.last}, list_lanes, meeting);
      }
      shared.part[t] = meeting;
      __syncthreads();
      if (busy && lane == 0) {
        for (int other = 1; other < list_lanes; ++other) meeting.join(shared.part[t + other]);
        finish_tile(tiles[shared.queue[turn + team]], meeting, shared);
      }
      __syncthreads();
    }
    __syncthreads();
  }
}

__device__ inline void find_tiles(const ListBuild& build, const AxisList& list, std::int64_t chunk, FindShared& shared) {
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // the last chunk still reads shared memory
  if (t < powers) shared.histogram[t] = 0;
  const int total = cut_chunk(list, chunk, shared);
  __syncthreads();
  meet_segments(build, list, total, shared);
  __syncthreads();
  if (t < powers) list.histogram[t * list.chunks + chunk] = shared.histogram[t];
}

}  // namespace hetsp::attention::cuda
