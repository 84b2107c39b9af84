// What a level's instructions offer to the steps of this folder: class Products, of the header HETSP_PAIR_PRODUCTS. The files
// of the folder are compiled once for each such level, each in a namespace of its own.
//
//   kGrain                   pairs that are summed at once: sums go over multiples of it, and what a sum takes beyond its own
//                            terms is 0 in both factors
//   kKeyBlock                keys of a whole tile that the backward takes together; a multiple of 16
//   kColumnsArePairs         whether the columns form is the pairs form, or [dim][kTile]
//   dots                     C[m][n] = sum over pairs A[m][pair] . B[pair][n], both factors contiguous along their last index
//   dots_over_keys           C[i][n] = sum over keys X[key][i] B[key][n], X in columns form, B in pairs of keys
//   column                   X[key][i]
//   enter, leave             the region of TileMath
//
// Each hands its sums, 16 along n at a time, to join(m, n, sum): an Into, or any other function.
#pragma once

#include <immintrin.h>

#include "hetsp/attention/cpu/tile_bf16/pair.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

// Which index of A is contiguous; a constant, because it decides how the rows of a block are addressed.
enum class Along { pairs, rows };

template <Along along>
struct Dots {
  std::int64_t pairs;  // of the sum
  const Word* a;       // [m][a_step] along pairs, [pair][a_step] along rows
  std::int64_t a_step;
  const Word* b;       // [pair][n], 64-byte aligned
  std::int64_t b_pair;
};

// Stores, in an array whose rows go on to the next multiple of 16: what lies there beyond m_end may be overwritten.
struct Into {
  float* c;  // [m][step], 64-byte aligned
  std::int64_t step;
  [[gnu::always_inline]] void operator()(std::int64_t m, std::int64_t n, __m512 sum) const {
    _mm512_store_ps(c + m * step + n, sum);
  }
};

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
