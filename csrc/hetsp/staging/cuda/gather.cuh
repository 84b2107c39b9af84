// The body of the gather kernel: one block of threads per piece, each piece by the widest words that both ends are aligned to.
#pragma once

#include <cstdint>
#include <cstring>

#include "hetsp/staging/gather.h"

namespace hetsp::staging::cuda {

constexpr int gather_threads = 128;

struct Word16 {
  std::uint64_t low, high;
};

// Threads of the block copy the words of [0, bytes) by turns; returns the bytes that whole words cover.
template <class Word>
__device__ std::uint32_t gather_words(char* to, const char* from, std::uint32_t bytes) {
  constexpr auto size = static_cast<std::uint32_t>(sizeof(Word));  // and its alignment, which memcpy is told
  const std::uint32_t count = bytes / size;
  for (std::uint32_t i = threadIdx.x; i < count; i += gather_threads) {
    Word word;
    std::memcpy(&word, __builtin_assume_aligned(from + i * size, size), size);
    std::memcpy(__builtin_assume_aligned(to + i * size, size), &word, size);
  }
  return count * size;
}

// Grid-stride over the pieces. No two pieces overlap in the block, so nothing has to wait.
__device__ inline void gather_pieces(const GatherParams& params) {
  for (int p = static_cast<int>(blockIdx.x); p < params.count; p += static_cast<int>(gridDim.x)) {
    const GatherPiece& piece = params.pieces[p];
    char* const to = params.to + piece.to;
    const auto misaligned = reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(piece.from);
    std::uint32_t done = 0;
    if (misaligned % sizeof(Word16) == 0) done = gather_words<Word16>(to, piece.from, piece.bytes);
    if (misaligned % sizeof(std::uint32_t) == 0)
      done += gather_words<std::uint32_t>(to + done, piece.from + done, piece.bytes - done);
    gather_words<char>(to + done, piece.from + done, piece.bytes - done);
  }
}

}  // namespace hetsp::staging::cuda
