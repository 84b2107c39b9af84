#include "hetsp/attention/cuda/tile_list.cuh"

#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda {

namespace {

// Two blocks of 512 threads a multiprocessor: up to 64 registers a thread, of which none spills.
constexpr int blocks_at_once = 2;

// What may be launched early touches nothing before wait_for_last, and lets the next kernel in behind it: that one may read at
// once what was written ahead of the list.
__global__ void __launch_bounds__(list_threads) mark_kernel(const __grid_constant__ ListBuild build) {
  allow_next();
  mark_list(build);
}

__global__ void __launch_bounds__(list_threads, blocks_at_once) find_kernel(const __grid_constant__ ListBuild build) {
  __shared__ __align__(16) unsigned char memory[sizeof(FindShared)];
  auto& shared = *reinterpret_cast<FindShared*>(memory);
  wait_for_last();
  allow_next();
  each_chunk(build, [&](const AxisList& list, std::int64_t chunk) { find_tiles(build, list, chunk, shared); });
}

__global__ void __launch_bounds__(list_threads) sort_kernel(const __grid_constant__ ListBuild build) {
  __shared__ __align__(16) unsigned char memory[sizeof(SortShared)];
  auto& shared = *reinterpret_cast<SortShared*>(memory);
  wait_for_last();
  allow_next();
  each_chunk(build, [&](const AxisList& list, std::int64_t chunk) { sort_tiles(list, chunk, shared); });
}

// All phases in one block: barriers order its own writes to global memory too.
__global__ void __launch_bounds__(list_threads) list_kernel(const __grid_constant__ ListBuild build) {
  __shared__ __align__(16) unsigned char memory[larger(sizeof(FindShared), sizeof(SortShared))];
  wait_for_last();
  allow_next();
  clear_marks(build);
  __syncthreads();
  mark_list(build);
  __syncthreads();
  each_chunk(build, [&](const AxisList& list, std::int64_t chunk) {
    find_tiles(build, list, chunk, *reinterpret_cast<FindShared*>(memory));
  });
  __syncthreads();
  each_chunk(build, [&](const AxisList& list, std::int64_t chunk) {
    sort_tiles(list, chunk, *reinterpret_cast<SortShared*>(memory));
  });
}

// Above either, one block takes longer than a memset and three launches, which take 16 us whatever they do (H200, driver 580):
//
//   documents       rows     one block (queries)   (queries and keys)   grid
//   1 of 16384      16384     7.7 us               12.6 us              17 us
//   32 of <= 2048   33000     9.4                  15.5                 16
//   500 of 64       32000    10.5                  17.8                 16
//   500 of 256     128000    18.0                  32.9                 16
constexpr std::int64_t one_block_rows = 65536, one_block_segments = 1024;

bool fits_one_block(const ListRequest& request) {
  const std::int64_t rows = (request.queries ? request.shape.total_q : 0) + (request.keys ? request.shape.total_k : 0);
  return rows <= one_block_rows && request.segment_count <= one_block_segments;
}

bool in_one_block(const ListRequest& request, ListPath path) {
  return path == ListPath::one_block || (path == ListPath::choose && fits_one_block(request));
}

// A graph can say of two kernels that the second may be placed early. What was captured ahead of a list may be anything.
bool is_captured(void* stream) {
  cudaStreamCaptureStatus status{};
  check(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

ListBuild layout_of(const ListRequest& request, bool one_block, void* memory) {
  Carving carving(memory);
  return lay_out(request, one_block, carving);
}

TileLists lists_in(const ListBuild& build) {
  const auto list = [](const AxisList& axis) { return TileList{axis.tiles, axis.count}; };
  return {list(build.lists[0]), list(build.lists[1]), reinterpret_cast<std::int32_t*>(build.zeroed)};
}

}  // namespace

std::int64_t tile_list_bytes(const ListRequest& request) {
  Carving nothing(nullptr);
  (void)lay_out(request, false, nothing);  // more chunks than in one block, so never less memory
  return nothing.bytes();
}

TileLists build_tile_lists(const ListRequest& request, void* memory, void* stream, ListPath path) {
  require(request.segment_count < 0x7fffffff, request.segment_count, " segments: the CUDA kernels take fewer than 2^31 - 1");
  const bool one_block = in_one_block(request, path);
  const ListBuild build = layout_of(request, one_block, memory);
  const auto queue = [&](const char* name, auto* kernel, std::int64_t blocks, bool early) {
    if (early) return launch_early(list_threads, name, kernel, blocks, 0, stream, build);
    launch_blocks_of(list_threads, name, kernel, blocks, 0, stream, build);
  };
  if (one_block) {
    queue("tile_list", list_kernel, 1, request.early && !is_captured(stream));
  } else {
    check(cudaMemsetAsync(build.zeroed, 0, static_cast<std::size_t>(build.zeroed_words) * sizeof(std::uint32_t),
                          static_cast<cudaStream_t>(stream)),
          "tile_list, clear");
    const std::int64_t chunks = build.lists[0].chunks + build.lists[1].chunks;
    queue("tile_list, mark", mark_kernel, ceil_div<std::int64_t>(build.segment_count * list_lanes, list_threads), false);
    queue("tile_list, find", find_kernel, chunks, request.early && request.segment_count > 0);
    queue("tile_list, sort", sort_kernel, chunks, request.early);
  }
  return lists_in(build);
}

TileLists built_tile_lists(const ListRequest& request, const void* memory) {
  return lists_in(layout_of(request, in_one_block(request, ListPath::choose), const_cast<void*>(memory)));
}

}  // namespace hetsp::attention::cuda
