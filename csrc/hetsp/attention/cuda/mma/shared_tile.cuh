// Tiles of 16-bit numbers in shared memory, and how rows of a tensor get there.
//
// A row is Dim numbers, in chunks of 16 bytes; chunk c of row r lies at place c XOR (r mod 8). Eight rows of one chunk column,
// which is what an 8 x 8 matrix is, then touch all banks once, and so does a warp that writes along rows.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/mma/warp_mma.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda::mma {

constexpr int chunk_elements = 8;

struct alignas(16) Chunk {
  std::uint32_t words[4];
};

template <int Rows, int Dim>
struct alignas(128) SharedTile {
  static constexpr int chunks = Dim / chunk_elements, pitch = Dim * 2;
  Chunk data[Rows][chunks];
  __device__ Chunk* at(int row, int chunk) { return &data[row][chunk ^ (row & 7)]; }
};

// Where a lane reads: row `row`, chunk `odd` (0 or 1), as a place from which the other even chunks and the rows that are a
// multiple of 8 further are one exchange of constant bits and one constant away.
template <int Dim>
struct Lines {
  SharedAddress origin;
  template <int Rows>
  __device__ Lines(const SharedTile<Rows, Dim>& tile, int row, int odd)
      : origin(shared_address(&tile) + static_cast<SharedAddress>(row * (Dim * 2) + ((odd ^ (row & 7)) * 16))) {}
  __device__ SharedAddress at(int rows, int even_chunk) const {
    return (origin ^ static_cast<SharedAddress>((even_chunk & 7) * 16)) +
           static_cast<SharedAddress>((even_chunk & ~7) * 16 + rows * (Dim * 2));
  }
};

// A tensor as a source of tiles. The view stays where it is, in the kernel's parameters: strides in registers are strides
// taken from the sums. `whole_chunks`: every row starts at a multiple of 16 bytes.
struct Source {
  const ConstView& view;
  std::int32_t dim;
  bool is_float, whole_chunks;
};

__device__ inline Source source_of(const ConstView& view, std::int64_t dim, bool is_float) {
  const std::uintptr_t strides = static_cast<std::uintptr_t>(view.token_stride) | static_cast<std::uintptr_t>(view.head_stride);
  const bool aligned = ((reinterpret_cast<std::uintptr_t>(view.data) | strides * 2) & 15u) == 0;
  return {view, static_cast<std::int32_t>(dim), is_float, aligned && !is_float};
}

// One chunk of a row, element by element: of any alignment, from 16-bit numbers or from floats.
template <class Element>
__device__ inline Chunk gather_chunk(const Source& source, std::int64_t offset, int column) {
  Chunk chunk{};
#pragma unroll
  for (int i = 0; i < chunk_elements; i += 2) {
    const bool first = column + i < source.dim, second = column + i + 1 < source.dim;
    if (source.is_float) {
      const auto* numbers = static_cast<const float*>(source.view.data) + offset + column + i;
      chunk.words[i / 2] = pack<Element>(first ? numbers[0] : 0.0f, second ? numbers[1] : 0.0f);
    } else {
      const auto* numbers = static_cast<const Element*>(source.view.data) + offset + column + i;
      chunk.words[i / 2] = (first ? numbers[0].bits : 0u) | (second ? static_cast<std::uint32_t>(numbers[1].bits) : 0u) << 16;
    }
  }
  return chunk;
}

// Rows [first + skip, first + count) of one head to the tile's rows [skip, count); the rest of the tile and the columns beyond
// the head's dimension become 0: rows beyond are another document's, and may be NaN. All `Threads` threads call; the copies
// belong to the group that each commits next.
template <class Element, int Threads, int Rows, int Dim>
__device__ inline void stage(SharedTile<Rows, Dim>& tile, const Source& source, std::int64_t head, std::int64_t first, int skip,
                             int count) {
  constexpr int chunks = Dim / chunk_elements, stride = Threads / chunks;
  static_assert(Threads % chunks == 0 && Rows % stride == 0, "every thread copies as many chunks of one column");
  const int chunk = static_cast<int>(threadIdx.x) % chunks, column = chunk * chunk_elements;
  const int row0 = static_cast<int>(threadIdx.x) / chunks;
  std::int64_t offset = head * source.view.head_stride + (first + row0) * source.view.token_stride;
  const std::int64_t next = stride * source.view.token_stride;
  if (source.whole_chunks) {
    const int wanted = smaller(larger(source.dim - column, 0), chunk_elements) * 2;
    offset += column;
#pragma unroll
    for (int i = 0; i < Rows / stride; ++i, offset += next) {
      const int row = row0 + i * stride;
      const bool there = row >= skip && row < count && wanted > 0;
      copy_16(shared_address(tile.at(row, chunk)), static_cast<const Element*>(source.view.data) + (there ? offset : 0),
              there ? wanted : 0);
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < Rows / stride; ++i, offset += next) {
    const int row = row0 + i * stride;
    *tile.at(row, chunk) = row >= skip && row < count ? gather_chunk<Element>(source, offset, column) : Chunk{};
  }
}

}  // namespace hetsp::attention::cuda::mma
