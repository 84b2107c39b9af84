// Products of bfloat16 numbers in pairs, summed in float: vdpbf16ps, which adds two products to each of 16 sums.
//
// All five kinds of product of attention are  C[m][n] = sum over pairs of A[m][pair] . B[pair][n]:  a pair of A, one 32-bit
// word, is broadcast, 16 pairs of B are loaded, and R x V vectors of C stay in registers over the whole sum. On a core with
// two 512-bit dot products and two loads a clock, R x V products cost R + V loads: 6 x 4 is bound by the arithmetic alone.
// Blocks of fewer columns take more rows, so that at least 12 sums (two pipes, six clocks deep) are under way.
//
// vdpbf16ps takes subnormal bfloat16 numbers and products for 0, and does not look at the rounding mode: nothing of a sum
// of normal size changes.
#pragma once

#include <immintrin.h>

#include "hetsp/attention/cpu/tile/simd.h"
#include "hetsp/attention/cpu/tile_bf16/columns.h"
#include "hetsp/attention/cpu/tile_bf16/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

inline __m512bh load_pairs(const Word* from) { return reinterpret_cast<__m512bh>(_mm512_load_si512(from)); }
inline __m512bh broadcast_pair(Word pair) { return reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair))); }

// Rows [m0, m0 + R), columns [n0, n0 + 16 V); join(m, n, sum) takes each vector of sums.
template <int R, int V, Along along, class Join>
[[gnu::always_inline]] inline void block(const Dots<along>& p, std::int64_t m0, std::int64_t n0, const Join& join) {
  __m512 sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
  const std::int64_t a_m = along == Along::rows ? 1 : p.a_step, a_pair = along == Along::rows ? p.a_step : 1;
  const std::int64_t b_pair = p.b_pair;
  const Word* a = p.a + m0 * a_m;
  const Word* b = p.b + n0;
  for (std::int64_t pair = p.pairs; pair > 0; --pair, a += a_pair, b += b_pair) {
    __m512bh column[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) column[v] = load_pairs(b + v * kWords);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512bh x = broadcast_pair(a[r * a_m]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, column[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) join(m0 + r, n0 + v * kWords, sum[r][v]);
}

template <int V>
constexpr int kRows = V == 4   ? 6
                      : V == 3 ? 8
                      : V == 2 ? 12
                               : 16;

template <int R, int V, Along along, class Join>
[[gnu::noinline]] void block_alone(const Dots<along>& p, std::int64_t m0, std::int64_t n0, const Join& join) {
  block<R, V>(p, m0, n0, join);
}

// The last rows, fewer than R: by halves.
template <int R, int V, Along along, class Join>
void rest(const Dots<along>& p, std::int64_t m, std::int64_t m_end, std::int64_t n0, const Join& join) {
  if constexpr (R > 0) {
    for (; m + R <= m_end; m += R) block_alone<R, V>(p, m, n0, join);
    rest<R / 2, V>(p, m, m_end, n0, join);
  }
}

// Rows [m, m_end), columns [n0, n0 + 16 V).
template <int V, Along along, class Join>
void dots(const Dots<along>& p, std::int64_t m, std::int64_t m_end, std::int64_t n0, const Join& join) {
  constexpr int R = kRows<V>;
  for (; m + R <= m_end; m += R) block<R, V>(p, m, n0, join);
  rest<R == 6 ? 4 : R / 2, V>(p, m, m_end, n0, join);
}

// Rows [m, m_end), columns [n, n_end), the latter multiples of 16.
template <Along along, class Join>
void dots(const Dots<along>& p, std::int64_t m, std::int64_t m_end, std::int64_t n, std::int64_t n_end, const Join& join) {
  for (; n + 4 * kWords <= n_end; n += 4 * kWords) dots<4>(p, m, m_end, n, join);
  switch ((n_end - n) / kWords) {
    case 3:
      return dots<3>(p, m, m_end, n, join);
    case 2:
      return dots<2>(p, m, m_end, n, join);
    case 1:
      return dots<1>(p, m, m_end, n, join);
    default:
      return;
  }
}

struct Products {
  static constexpr std::int64_t kGrain = 1;
  static constexpr std::int64_t kKeyBlock = 16;  // scores and dout . v stay in the first-level cache until they are weights
  static constexpr bool kColumnsArePairs = true;
  static constexpr void (*enter)() = nullptr;
  static constexpr void (*leave)() = nullptr;

  template <class Join>
  static void dots(const Dots<Along::pairs>& p, std::int64_t m, std::int64_t m_end, std::int64_t n, std::int64_t n_end,
                   const Join& join) {
    HETSP_ISA::dots(p, m, m_end, n, n_end, join);
  }

  // b: [pair of keys][b_pair], of all keys of the tile; keys.begin is even.
  template <class Join>
  static void dots_over_keys(const void* columns, std::int64_t dim, KeyRange keys, const Word* b, std::int64_t b_pair,
                             std::int64_t n, std::int64_t n_end, const Join& join) {
    const std::int64_t first = keys.begin / 2, dim_pad = pad(dim);
    const Dots<Along::rows> product{(keys.end + 1) / 2 - first, static_cast<const Word*>(columns) + first * dim_pad, dim_pad,
                                    b + first * b_pair, b_pair};
    HETSP_ISA::dots(product, 0, dim, n, n_end, join);
  }

  static float column(const void* columns, std::int64_t dim, std::int64_t key, std::int64_t i) {
    return number(static_cast<const Word*>(columns)[key / 2 * pad(dim) + i], key % 2);
  }
};

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
