// Cases of tma.cuh: boxes inside and across every side of a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "attention/hopper_case.cuh"

namespace hopper_primitives {

// A strided 3-D tensor (dim, head, token) with NaN between the rows.
struct Tensor {
  int dim, heads, tokens, head_stride, token_stride;  // strides in elements
  std::size_t size() const { return static_cast<std::size_t>(tokens) * token_stride; }
  bool holds(int c, int h, int t) const { return 0 <= c && c < dim && 0 <= h && h < heads && 0 <= t && t < tokens; }
  std::size_t at(int c, int h, int t) const {
    return static_cast<std::size_t>(t) * token_stride + static_cast<std::size_t>(h) * head_stride + c;
  }
};
struct Corner {
  int column, head, token;
};

// Boxes of 64 columns and Rows tokens, one after the other through one barrier, to out[box][row][column].
template <int Rows>
struct BoxLoad {
  static constexpr int threads = 128;
  using Tile = SharedTile<Rows, 64>;
  struct Shared {
    alignas(1024) unsigned char tile[Tile::bytes];
    Barrier full;
  };
  TensorMap map;
  const Corner* corners;
  int count;
  std::uint16_t* out;

  __device__ void operator()(Shared& shared) const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) {
      prefetch(map);
      init(shared.full, 1);
      fence_barrier_init();
    }
    __syncthreads();
    for (int box = 0; box < count; ++box) {
      if (thread == 0) {
        arrive_and_expect(shared.full, Tile::bytes);
        load_box(shared.tile, map, shared.full, corners[box].column, corners[box].head, corners[box].token);
      }
      wait(shared.full, box & 1);
      for (int i = thread; i < Rows * 64; i += threads)
        out[box * Rows * 64 + i] = *reinterpret_cast<const std::uint16_t*>(shared.tile + Tile::offset(i / 64, i % 64));
      __syncthreads();
    }
  }
};

template <class Element, int Rows>
std::string box_load(int dim) {
  const int head_stride = (dim + 7) / 8 * 8 + 8;
  const Tensor tensor{dim, 3, 300, head_stride, 3 * head_stride + 16};
  std::vector<std::uint16_t> data(tensor.size(), 0x7fff);
  for (int t = 0; t < tensor.tokens; ++t)
    for (int h = 0; h < tensor.heads; ++h)
      for (int c = 0; c < dim; ++c) data[tensor.at(c, h, t)] = static_cast<std::uint16_t>((t * 131 + h * 31 + c) & 0x3fff);
  const std::vector<Corner> corners{{0, 0, 0},    {0, 2, 17},    {64, 1, 5},   {0, 1, 300 - Rows}, {0, 2, 300 - Rows / 2},
                                    {64, 0, 299}, {128, 2, 250}, {0, 0, 1000}, {0, 1, -3},         {-8, 0, 2}};
  std::vector<float> wanted;
  for (const Corner& corner : corners)
    for (int r = 0; r < Rows; ++r)
      for (int c = 0; c < 64; ++c) {
        const bool inside = tensor.holds(corner.column + c, corner.head, corner.token + r);
        wanted.push_back(inside ? data[tensor.at(corner.column + c, corner.head, corner.token + r)] : 0.0f);
      }
  backend::Buffer<std::uint16_t> source(data), out(std::vector<std::uint16_t>(wanted.size(), 0xffff));
  backend::Buffer<Corner> places(corners);
  backend::run(1, BoxLoad<Rows>{backend::tensor_map<Element>(source.device(), tensor, 64, Rows), places.device(),
                                static_cast<int>(corners.size()), out.device()});
  const std::vector<std::uint16_t> got = out.fetch();
  return compare("box", std::vector<float>(got.begin(), got.end()), wanted);
}

// Every block adds every box to the tensor: 64 rows of 32 float32, value (row, column, box, block).
struct BoxAdd {
  static constexpr int threads = 128, rows = 64, columns = 32;
  using Tile = SharedTile<rows, columns, 4>;
  struct Shared {
    alignas(1024) unsigned char tile[2][Tile::bytes];
  };
  TensorMap map;
  const Corner* corners;
  int count;

  __host__ __device__ static float value(int box, int row, int column, int block) {
    return static_cast<float>(box * 1000 + row * 32 + column + block);
  }
  __device__ void operator()(Shared& shared) const {
    const int thread = static_cast<int>(threadIdx.x);
    for (int box = 0; box < count; ++box) {  // two tiles in turn: one is read while the next is written
      unsigned char* tile = shared.tile[box & 1];
      if (thread == 0) wait_bulk_read<1>();
      __syncthreads();
      for (int i = thread; i < rows * columns; i += threads)
        *reinterpret_cast<float*>(tile + Tile::offset(i / columns, i % columns)) =
            value(box, i / columns, i % columns, static_cast<int>(blockIdx.x));
      fence_async_proxy();
      __syncthreads();
      if (thread == 0) {
        reduce_add_box(map, tile, corners[box].column, corners[box].head, corners[box].token);
        commit_bulk();
      }
    }
    if (thread == 0) wait_bulk<0>();
  }
};

inline std::string box_add(int dim, const std::vector<Corner>& corners, int blocks) {
  const int head_stride = (dim + 3) / 4 * 4 + 4;
  const Tensor tensor{dim, 3, 200, head_stride, 3 * head_stride + 8};
  std::vector<float> data = integers(tensor.size(), 7, 100);
  std::vector<float> wanted = data;
  for (int block = 0; block < blocks; ++block)
    for (std::size_t box = 0; box < corners.size(); ++box)
      for (int r = 0; r < BoxAdd::rows; ++r)
        for (int c = 0; c < BoxAdd::columns; ++c)
          if (const Corner& corner = corners[box]; tensor.holds(corner.column + c, corner.head, corner.token + r))
            wanted[tensor.at(corner.column + c, corner.head, corner.token + r)] +=
                BoxAdd::value(static_cast<int>(box), r, c, block);
  backend::Buffer<float> sums(data);
  backend::Buffer<Corner> places(corners);
  backend::run(blocks, BoxAdd{backend::tensor_map<float>(sums.device(), tensor, BoxAdd::columns, BoxAdd::rows), places.device(),
                              static_cast<int>(corners.size())});
  return compare("sum", sums.fetch(), wanted);
}

}  // namespace hopper_primitives
