// Accumulators to memory, any stride, without shared memory; backward_gradients.cuh takes some and is faster.
//
// Of 32 columns of a row, the four threads of a quad hold two of every eight. They turn these 4 x 4 pairs around among
// themselves, so that each has eight columns in a row, 16 bytes in 16-bit numbers: whole sectors are written.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/backward_steps.cuh"
#include "hetsp/attention/cuda/hopper/warp.cuh"
#include "hetsp/attention/cuda/tile.cuh"

namespace hetsp::attention::cuda::hopper {

struct alignas(16) FourWords {
  std::uint32_t at[4];
};

// Word i of thread t of a quad becomes word t of thread i.
__device__ inline void turn_around(FourWords& words, int t) {
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (t & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      std::uint32_t &low = words.at[i], &high = words.at[i | bit];
      const std::uint32_t other = shuffle_xor(upper ? low : high, bit);
      (upper ? low : high) = other;
    }
  }
}

// Eight neighbours from 16-bit words, as one piece where they lie at a multiple of 16 bytes.
__device__ inline void store_eight(void* to, const FourWords& words) {
  if ((reinterpret_cast<std::uintptr_t>(to) & 15) == 0) {
    *static_cast<FourWords*>(to) = words;
    return;
  }
  auto* const halves = static_cast<std::uint16_t*>(to);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    halves[2 * i] = static_cast<std::uint16_t>(words.at[i]);
    halves[2 * i + 1] = static_cast<std::uint16_t>(words.at[i] >> 16);
  }
}

// Rows `row` and row + 8 of the tile, the thread's columns of the accumulator (wgmma.cuh), times `factor`; `rows` of them
// exist. `dim` is a multiple of 8. All lanes call.
template <class Element, int Dim>
__device__ inline void write_rows(const View& view, bool is_float, std::int64_t dim, const Step& step, int row, int quad,
                                  const float (&sum)[Dim / 2], float factor) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool exists = row + 8 * h < step.rows.end;
    const std::int64_t offset = (step.row0 + row + 8 * h) * view.token_stride + step.head * view.head_stride;
    if (is_float) {
      float* const to = static_cast<float*>(view.data) + offset + 2 * quad;
#pragma unroll
      for (int j = 0; j < Dim / 8; ++j)
        if (exists && 8 * j < dim) to[8 * j] = sum[4 * j + 2 * h] * factor, to[8 * j + 1] = sum[4 * j + 2 * h + 1] * factor;
      continue;
    }
    std::uint16_t* const to = static_cast<std::uint16_t*>(view.data) + offset + 8 * quad;
#pragma unroll
    for (int g = 0; g < Dim / 32; ++g) {
      FourWords words;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 4 * (4 * g + i) + 2 * h;
        words.at[i] = pack<Element>(sum[at] * factor, sum[at + 1] * factor);
      }
      turn_around(words, quad);
      if (exists && 32 * g + 8 * quad < dim) store_eight(to + 32 * g, words);
    }
  }
}

}  // namespace hetsp::attention::cuda::hopper
