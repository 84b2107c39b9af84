// Tiles in shared memory as wgmma and TMA want them with the 128-byte swizzle: panels of 128 bytes a row, one behind the other.
// In a panel, row r starts at r * 128, and its 16-byte chunk c lies at (c XOR r mod 8) * 16: neither a row nor a column of
// chunks meets a bank twice. A tile starts at a multiple of 1024 bytes.
//
// The descriptors are those of the PTX ISA's "matrix descriptor": address / 16 in bits 0-13, leading offset / 16 in 16-29,
// stride offset / 16 in 32-45, layout in 62-63 (1: 128-byte swizzle).
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/warp.cuh"

namespace hetsp::attention::cuda::hopper {

__device__ inline std::uint64_t matrix_descriptor(std::uint32_t address, std::uint32_t leading, std::uint32_t stride) {
  return static_cast<std::uint64_t>((address & 0x3ffffu) >> 4) | static_cast<std::uint64_t>(leading >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32 | std::uint64_t{1} << 62;
}

template <int Rows, int Columns, int ElementBytes = 2>
struct SharedTile {
  static_assert(Rows % 8 == 0, "the swizzle repeats every 8 rows");
  static constexpr int rows = Rows, columns = Columns;
  static constexpr int panel_columns = 128 / ElementBytes;
  static constexpr int panels = (Columns + panel_columns - 1) / panel_columns;
  static constexpr int panel_bytes = Rows * 128;
  static constexpr int bytes = panels * panel_bytes;

  // Where an element lies, in bytes from the tile's begin.
  __device__ static constexpr int offset(int row, int column) {
    const int byte = column % panel_columns * ElementBytes;
    return column / panel_columns * panel_bytes + row * 128 + (((byte >> 4) ^ (row & 7)) << 4) + (byte & 15);
  }

  // As an operand whose rows are the M or N index and whose columns are summed over: 16 columns from `column`, rows from `row`.
  __device__ static std::uint64_t k_major(const void* tile, int row, int column) {
    static_assert(ElementBytes == 2, "wgmma of 16-bit numbers");
    const int start = column / panel_columns * panel_bytes + row * 128 + column % panel_columns * ElementBytes;
    return matrix_descriptor(shared_address(tile) + static_cast<std::uint32_t>(start), 16, 1024);
  }

  // As a transposed operand: rows are summed over, 16 of them from `row`; columns are the M or N index, from `column`, which
  // is a multiple of 64.
  __device__ static std::uint64_t mn_major(const void* tile, int row, int column) {
    static_assert(ElementBytes == 2, "wgmma of 16-bit numbers");
    const int start = column / panel_columns * panel_bytes + row * 128;
    return matrix_descriptor(shared_address(tile) + static_cast<std::uint32_t>(start), panel_bytes, 1024);
  }
};

}  // namespace hetsp::attention::cuda::hopper
