// Builds the lists of tile_list.h on the device: segments go in, sorted tiles come out, and the host never waits.
//
//   clear   the marks
//   mark    every segment notes its cuts (one bit per row) and itself in the blocks that it touches: one maximum for the
//           first, one for the last in the list; in groups that it covers whole it notes itself once instead of 64 times
//   find    every chunk: the phase of the last cut before it, tiles by prefix sums over its blocks, and per tile the exact
//           first and last segment and the steps; a histogram of the power of two of the steps
//   sort    every chunk: where its tiles of each power belong, by the histograms of all, then one stable move
//
// Bits and maxima commute and all sums are of integers, so the list is the same in every run. It is right for any list of
// segments. For one that jumps about, a tile's range is wide and every tile reads it, as the attention kernels then do.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/segment_index.cuh"
#include "hetsp/attention/cuda/tile_list_find.cuh"
#include "hetsp/attention/cuda/tile_list_layout.cuh"

namespace hetsp::attention::cuda {

__device__ inline void clear_marks(const ListBuild& build) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * list_threads;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * list_threads + threadIdx.x; i < build.zeroed_words; i += stride)
    build.zeroed[i] = 0;
}

__device__ inline void cut(const AxisList& list, std::int64_t row) {
  constexpr std::int64_t group_rows = group_blocks * tile_rows;
  if (row <= 0 || row >= list.rows) return;
  atomicOr(&list.cuts[row / 32], 1u << (row % 32));
  atomicMax(&list.last_cut[row / group_rows], static_cast<std::int32_t>(row % group_rows) + 1);
}

__device__ inline void mark_rows(const AxisList& list, RowRange rows, std::int32_t segment, std::int32_t count, int lane,
                                 int lane_count) {
  const auto mark = [&](std::int64_t place) {
    atomicMax(&list.first[place], count - segment);
    atomicMax(&list.last[place], segment + 1);
  };
  if (lane == 0 && rows.end - rows.begin >= tile_rows) cut(list, rows.begin), cut(list, rows.end);
  const std::int64_t begin = rows.begin / tile_rows, end = (rows.end - 1) / tile_rows + 1;
  std::int64_t whole = ceil_div<std::int64_t>(begin, group_blocks), whole_end = end / group_blocks;  // groups
  if (whole >= whole_end) {
    for (std::int64_t block = begin + lane; block < end; block += lane_count) mark(block);
    return;
  }
  for (std::int64_t block = begin + lane; block < whole * group_blocks; block += lane_count) mark(block);
  for (std::int64_t group = whole + lane; group < whole_end; group += lane_count) mark(list.blocks + group);
  for (std::int64_t block = whole_end * group_blocks + lane; block < end; block += lane_count) mark(block);
}

// As many threads a segment as the grid has to spare: one or list_lanes.
__device__ inline void mark_list(const ListBuild& build) {
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * list_threads;
  const std::int64_t thread = static_cast<std::int64_t>(blockIdx.x) * list_threads + threadIdx.x;
  const int lane_count = threads >= build.segment_count * list_lanes ? list_lanes : 1;
  const auto count = static_cast<std::int32_t>(build.segment_count);
  for (std::int64_t i = thread / lane_count; i < build.segment_count; i += threads / lane_count) {
    const Segment segment = clamped(build.segments[i], build.shape);
    if (segment.q_begin >= segment.q_end || segment.k_begin >= segment.k_end) continue;
    const int lane = static_cast<int>(thread % lane_count);
    for (const AxisList& list : build.lists) {
      if (list.chunks == 0) continue;
      const RowRange rows =
          list.axis == Axis::queries ? RowRange{segment.q_begin, segment.q_end} : RowRange{segment.k_begin, segment.k_end};
      mark_rows(list, rows, static_cast<std::int32_t>(i), count, lane, lane_count);
    }
  }
}

struct SortShared {
  std::int32_t before[powers], total[powers];     // tiles of each power: of earlier chunks, of all
  std::int32_t offset[powers];                    // where the next tile of each power goes; high powers first
  std::uint32_t members[powers][list_warps];      // which threads hold a tile of each power
};

// Where the chunk's tiles of each power begin: behind all higher powers, and behind the same power of earlier chunks.
__device__ inline void place_powers(const AxisList& list, std::int64_t chunk, SortShared& shared) {
  constexpr int team = list_threads / powers;
  static_assert(team <= 32 && powers == 32, "a team lies in a warp, and a warp has a lane for each power");
  const int t = static_cast<int>(threadIdx.x);
  std::int32_t before = 0, total = 0;
  for (std::int64_t other = t % team; other < list.chunks; other += team) {
    const std::int32_t number = list.histogram[(t / team) * list.chunks + other];
    total += number;
    if (other < chunk) before += number;
  }
#pragma unroll
  for (int other = team / 2; other > 0; other /= 2) {
    before += __shfl_xor_sync(0xffffffffu, before, other);
    total += __shfl_xor_sync(0xffffffffu, total, other);
  }
  if (t % team == 0) shared.before[t / team] = before, shared.total[t / team] = total;
  __syncthreads();
  if (t >= powers) return;
  const WarpScanned higher = warp_scan(shared.total[t], [](std::int32_t a, std::int32_t b) { return a + b; });
  shared.offset[t] = shared.before[t] + higher.before;
  if (t == powers - 1 && chunk == 0) *list.count = higher.through;
}

__device__ inline void sort_tiles(const AxisList& list, std::int64_t chunk, SortShared& shared) {
  constexpr int words = list_warps;
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // the last chunk still reads shared memory
  place_powers(list, chunk, shared);
  const std::int32_t number = list.number[chunk];
  const Tile* const found = list.found + list.base[chunk];
  for (std::int32_t begin = 0; begin < number; begin += list_threads) {
    shared.members[t / words][t % words] = 0;
    __syncthreads();
    const bool mine = begin + t < number;
    const Tile tile = mine ? found[begin + t] : Tile{};
    const int power = __clz(tile.steps) - 1;  // 0: the largest
    if (mine) atomicOr(&shared.members[power][t / 32], 1u << (t % 32));
    __syncthreads();
    if (mine) {
      std::int32_t place = shared.offset[power] + __popc(shared.members[power][t / 32] & ((1u << (t % 32)) - 1));
      for (int w = 0; w < t / 32; ++w) place += __popc(shared.members[power][w]);
      list.tiles[place] = tile;
    }
    if (begin + list_threads >= number) break;
    __syncthreads();
    if (t < powers)
      for (const std::uint32_t bits : shared.members[t]) shared.offset[t] += __popc(bits);
    __syncthreads();
  }
}

// Calls call(list, chunk) for every chunk of both lists that is this block's turn.
template <class Call>
__device__ void each_chunk(const ListBuild& build, const Call& call) {
  const std::int64_t queries = build.lists[0].chunks, all = queries + build.lists[1].chunks;
  for (std::int64_t i = blockIdx.x; i < all; i += gridDim.x) {
    const bool by_query = i < queries;
    call(build.lists[by_query ? 0 : 1], by_query ? i : i - queries);
  }
}

}  // namespace hetsp::attention::cuda
