// The work list as a GPU builds it, against the definition (tests/cpp/attention/tile_list_reference.h), and what a build takes;
// and which strides the copy engine really takes, against rules of box_view.h.
//
//   cmake --build build --target tile_list        (also of gpu_programs)
//
// Prints one line a case and exits 1 if any is wrong.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "attention/random_segments.h"
#include "attention/tile_list_reference.h"
#include "hetsp/attention/cuda/hopper/shared_tile.cuh"
#include "hetsp/attention/cuda/hopper/tensor_map.h"
#include "hetsp/attention/cuda/launch.cuh"
#include "hetsp/attention/cuda/tile_list.h"

using namespace attention_test;
namespace cuda = hetsp::attention::cuda;
namespace hopper = hetsp::attention::cuda::hopper;
using hetsp::attention::DType;

namespace {

int failures = 0;

struct DeviceMemory {
  void* data = nullptr;
  explicit DeviceMemory(std::size_t bytes) { cuda::check(cudaMalloc(&data, std::max<std::size_t>(bytes, 256)), "cudaMalloc"); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(data); }
};

template <class Item>
std::vector<Item> to_host(const void* data, std::size_t count) {
  std::vector<Item> items(count);
  if (count > 0) cuda::check(cudaMemcpy(items.data(), data, count * sizeof(Item), cudaMemcpyDeviceToHost), "copy");
  return items;
}

template <class Call>
double median_us(const Call& call) {
  constexpr int kRounds = 15;
  cudaEvent_t begin, end;
  cudaEventCreate(&begin), cudaEventCreate(&end);
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    cudaEventRecord(begin);
    for (int j = 0; j < 10; ++j) call();
    cudaEventRecord(end);
    cuda::check(cudaEventSynchronize(end), "run");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    times.push_back(ms * 100);
  }
  cudaEventDestroy(begin), cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

struct Problem {
  std::string name;
  std::vector<Segment> segments;
  Shape shape;
};

void run(const Problem& p, bool one_block_too) {
  const auto count = static_cast<std::int64_t>(p.segments.size());
  const DeviceMemory segments(p.segments.size() * sizeof(Segment));
  cudaMemcpy(segments.data, p.segments.data(), p.segments.size() * sizeof(Segment), cudaMemcpyHostToDevice);
  const auto request = [&](bool queries, bool keys) {
    return cuda::ListRequest{static_cast<const Segment*>(segments.data), count, p.shape, queries, keys};
  };
  const std::vector<Tile> expected[2] = {reference_tiles(p.segments, p.shape, Axis::queries),
                                         reference_tiles(p.segments, p.shape, Axis::keys)};
  const auto bytes = static_cast<std::size_t>(cuda::tile_list_bytes(request(true, true)));
  const DeviceMemory memory(bytes);
  std::string times;
  for (const cuda::ListPath path : {cuda::ListPath::grid, cuda::ListPath::one_block}) {
    if (path == cuda::ListPath::one_block && !one_block_too) continue;
    const char* const path_name = path == cuda::ListPath::grid ? "grid" : "one block";
    cudaMemset(memory.data, 0x5a, bytes);
    const cuda::TileLists lists = cuda::build_tile_lists(request(true, true), memory.data, nullptr, path);
    cuda::check(cudaDeviceSynchronize(), path_name);
    for (int axis = 0; axis < 2; ++axis) {
      const cuda::TileList& list = axis == 0 ? lists.queries : lists.keys;
      const int tiles = to_host<std::int32_t>(list.count, 1)[0];
      std::string wrong = tiles < 0 || tiles > cuda::most_tiles(axis == 0 ? p.shape.total_q : p.shape.total_k, count)
                              ? std::to_string(tiles) + " tiles"
                              : difference(to_host<Tile>(list.tiles, static_cast<std::size_t>(tiles)), expected[axis]);
      if (wrong.empty()) continue;
      ++failures;
      std::printf("WRONG %s, %s, %s: %s\n", p.name.c_str(), path_name, axis == 0 ? "queries" : "keys", wrong.c_str());
    }
    for (const bool both : {false, true}) {
      const double us = median_us([&] { cuda::build_tile_lists(request(true, both), memory.data, nullptr, path); });
      char text[64];
      std::snprintf(text, sizeof(text), "  %s%s %.1f us", path_name, both ? ", both axes" : "", us);
      times += text;
    }
  }
  std::printf("list  %-34s %7zu tiles%s\n", p.name.c_str(), expected[0].size(), times.c_str());
}

Shape rows(std::int64_t total) { return {total, total, 1, 1, 128, 128, DType::bfloat16}; }

Problem documents(std::string name, const std::vector<std::int64_t>& lengths) {
  Problem p{std::move(name), {}, {}};
  std::int64_t row = 0;
  for (const std::int64_t length : lengths) {
    p.segments.push_back({row, row + length, row, row + length, 0, 0, -1, 0});
    row += length;
  }
  p.shape = rows(row);
  return p;
}

std::vector<std::int64_t> random_lengths(std::size_t count, std::int64_t most) {
  std::mt19937 random(7);
  std::vector<std::int64_t> lengths(count);
  for (auto& length : lengths) length = std::uniform_int_distribution<std::int64_t>(0, most)(random);
  return lengths;
}

void all_lists() {
  run(documents("1 of 16384", {16384}), true);
  run(documents("32 of up to 2048", random_lengths(32, 2048)), true);
  run(documents("500 of 64", std::vector<std::int64_t>(500, 64)), true);
  run(documents("500 of 256", std::vector<std::int64_t>(500, 256)), true);
  run(documents("500 of up to 4000", random_lengths(500, 4000)), false);
  std::vector<std::int64_t> skewed(501, 256);
  skewed[0] = 131072;
  run(documents("1 of 131072, 500 of 256", skewed), false);
  run(documents("1 of 1000000", {1000000}), false);
  run(documents("80000 of up to 64", random_lengths(80000, 64)), false);
  run(documents("80000 of 512", std::vector<std::int64_t>(80000, 512)), false);
  Problem jumping = documents("500 of 256, shuffled", std::vector<std::int64_t>(500, 256));
  std::mt19937 random(3);
  std::shuffle(jumping.segments.begin(), jumping.segments.end(), random);
  run(jumping, false);
  for (unsigned seed = 0; seed < 12; ++seed) {
    std::mt19937 own(seed);
    const std::int64_t total = std::uniform_int_distribution<std::int64_t>(0, seed % 2 == 0 ? 300 : 30000)(own);
    run({"shared rows, seed " + std::to_string(seed), random_segments(own, total, 80), rows(total)}, true);
  }
}

// ---- the copy engine

constexpr int kRows = 64, kColumns = 64;
using Panel = hopper::SharedTile<kRows, kColumns>;

__global__ void load_kernel(const __grid_constant__ hopper::TensorMap map, int column, int head, int token,
                            unsigned short* out) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ __align__(1024) unsigned char tile[Panel::bytes];
  __shared__ hopper::Barrier full;
  if (threadIdx.x == 0) {
    hopper::init(full, 1);
    hopper::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    hopper::arrive_and_expect(full, Panel::bytes);
    hopper::load_box(tile, map, full, column, head, token);
  }
  hopper::wait(full, 0);
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kColumns; i += static_cast<int>(blockDim.x))
    out[i] = *reinterpret_cast<unsigned short*>(tile + Panel::offset(i / kColumns, i % kColumns));
#endif
}

// Numbers 1, 2, ... in memory; a box of the view must hold what plain indexing finds, and 0 outside.
void run_view(const char* name, std::int64_t tokens, std::int64_t heads, std::int64_t dim, std::int64_t token_stride,
              std::int64_t head_stride, std::int64_t offset) {
  const auto at = [&](std::int64_t t, std::int64_t h, std::int64_t c) {
    return offset + t * token_stride + h * head_stride + c;
  };
  const std::int64_t size = at(tokens - 1, heads - 1, dim - 1) + 1;
  const DeviceMemory memory(static_cast<std::size_t>(size) * 2), result(kRows * kColumns * 2);
  const auto value = [](std::int64_t i) { return static_cast<unsigned short>(i % 65521 + 1); };
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t h = 0; h < heads; ++h) {
      std::vector<unsigned short> row(static_cast<std::size_t>(dim));
      for (std::int64_t c = 0; c < dim; ++c) row[static_cast<std::size_t>(c)] = value(at(t, h, c));
      cudaMemcpy(static_cast<unsigned short*>(memory.data) + at(t, h, 0), row.data(), row.size() * 2, cudaMemcpyHostToDevice);
    }
  const auto view = hopper::box_view({static_cast<unsigned short*>(memory.data) + offset, token_stride, head_stride},
                                     DType::bfloat16, tokens, heads, dim);
  if (const char* why = hopper::box_refusal(view)) {
    ++failures;
    std::printf("WRONG box %s: the rules refuse it: %s\n", name, why);
    return;
  }
  try {
    const hopper::TensorMap map = hopper::tensor_map(view, kColumns, kRows);
    int wrong = 0, boxes = 0;
    for (const std::int64_t token : {std::int64_t{0}, tokens / 2, tokens - 5})
      for (std::int64_t head : {std::int64_t{0}, heads - 1})
        for (std::int64_t column = 0; column < dim; column += kColumns, ++boxes) {
          if (token < 0) continue;
          load_kernel<<<1, 128>>>(map, static_cast<int>(column), static_cast<int>(head), static_cast<int>(token),
                                  static_cast<unsigned short*>(result.data));
          cuda::check(cudaDeviceSynchronize(), name);
          const auto box = to_host<unsigned short>(result.data, kRows * kColumns);
          for (int i = 0; i < kRows * kColumns; ++i) {
            const std::int64_t t = token + i / kColumns, c = column + i % kColumns;
            wrong += box[static_cast<std::size_t>(i)] != (t < tokens && c < dim ? value(at(t, head, c)) : 0);
          }
        }
    failures += wrong != 0;
    std::printf("%s box %s: %d boxes, %d wrong elements\n", wrong == 0 ? "ok   " : "WRONG", name, boxes, wrong);
  } catch (const std::exception& error) {
    ++failures;
    std::printf("WRONG box %s: %s\n", name, error.what());
  }
}

void all_views() {
  run_view("contiguous", 200, 4, 128, 512, 128, 0);
  run_view("dim 72, filled up with zeros", 200, 4, 72, 288, 72, 0);
  run_view("a slice of packed q, k, v", 200, 4, 64, 768, 64, 256);
  run_view("head-major", 200, 4, 64, 64, 12800, 0);
  run_view("one head expanded", 200, 4, 64, 64, 0, 0);
  run_view("one token expanded", 200, 4, 64, 0, 64, 0);
  run_view("one head, odd stride", 200, 1, 64, 64, 13, 0);
  run_view("one token, odd stride", 1, 4, 64, 13, 64, 0);
  run_view("overlapping rows", 200, 2, 64, 8, 16, 0);
  run_view("tokens 2^31 elements apart", 6, 2, 64, (std::int64_t{1} << 31) + 64, 64, 0);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string part = argc > 1 ? argv[1] : "";
    if (part != "boxes") all_lists();
    if (part != "lists") all_views();
  } catch (const std::exception& error) {
    ++failures;
    std::printf("WRONG %s\n", error.what());
  }
  std::printf("%d failures\n", failures);
  return failures != 0;
}
