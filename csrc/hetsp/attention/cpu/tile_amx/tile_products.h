// Products of bfloat16 numbers in pairs, tile by tile: TDPBF16PS adds to 16 x 16 float sums the products of 16 rows of 16
// pairs with 16 pairs of 16 columns: 8192 of them, in 16 clocks on the CPUs that have it. A product  C[m][n] = sum over pairs
// of A[m][pair] . B[pair][n]  takes both factors as the packed forms have them; only what is summed over keys and broadcast
// (columns form) must be turned for it.
//
// Blocks of 2 x 2 tiles of C, with their two of A and two of B, fill the eight registers: a load for each dot product, two of
// which take as long as it does. Rows beyond the end of A are read, as far as a multiple of 16 (the forms have kTile rows), and
// their sums dropped.
//
// As vdpbf16ps, the instruction takes subnormal numbers for 0, and does not look at the rounding mode. Of the 32 terms of a
// sum, those of even and those of odd index are summed each by itself, by fused multiply-adds; then both are added, then this
// to C.
#pragma once

#include <immintrin.h>

#include "hetsp/attention/cpu/tile_bf16/columns.h"
#include "hetsp/attention/cpu/tile_bf16/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

template <class Join>
constexpr bool kStoresOnly = false;
template <>
constexpr bool kStoresOnly<Into> = true;

// Tiles: eight registers (tiles.h).
template <class Tiles>
struct TileProducts {
  static constexpr std::int64_t kGrain = 16;
  static constexpr std::int64_t kKeyBlock = 32;  // two tiles of C side by side
  static constexpr bool kColumnsArePairs = false;
  static void enter() { Tiles::configure(); }
  static void leave() { Tiles::release(); }

  // Columns [n, n_end) multiples of 16, pairs a multiple of kGrain.
  template <class Join>
  static void dots(const Dots<Along::pairs>& p, std::int64_t m, std::int64_t m_end, std::int64_t n, std::int64_t n_end,
                   const Join& join) {
    for (; n + 2 * kSide <= n_end; n += 2 * kSide) columns<2>(p, m, m_end, n, join);
    if (n < n_end) columns<1>(p, m, m_end, n, join);
  }

  // b: [pair of keys][b_pair], of all keys of the tile, zeros about `keys`.
  template <class Join>
  static void dots_over_keys(const void* columns, std::int64_t dim, KeyRange keys, const Word* b, std::int64_t b_pair,
                             std::int64_t n, std::int64_t n_end, const Join& join) {
    const std::int64_t first = keys.begin / (2 * kGrain) * kGrain;
    const std::int64_t last = (keys.end + 2 * kGrain - 1) / (2 * kGrain) * kGrain;
    const Dots<Along::pairs> product{last - first, static_cast<const Word*>(columns) + first, kTile / 2, b + first * b_pair,
                                     b_pair};
    dots(product, 0, dim, n, n_end, join);
  }

  static float column(const void* columns, std::int64_t, std::int64_t key, std::int64_t i) {
    return number(static_cast<const Word*>(columns)[i * (kTile / 2) + key / 2], key % 2);
  }

 private:
  static constexpr std::int64_t kSide = 16;
  static constexpr std::int64_t kRowBytes = kSide * sizeof(float);

  template <int V, class Join>
  static void columns(const Dots<Along::pairs>& p, std::int64_t m, std::int64_t m_end, std::int64_t n, const Join& join) {
    for (; m + kSide < m_end; m += 2 * kSide) block<2, V>(p, m, m_end, n, join);
    if (m < m_end) block<1, V>(p, m, m_end, n, join);
  }

  // Rows [m, m + 16 R), of which those before m_end are wanted, columns [n, n + 16 V): C in registers 0 to 3, A in 4 and 5, B
  // in 6 and 7.
  template <int R, int V, class Join>
  static void block(const Dots<Along::pairs>& p, std::int64_t m, std::int64_t m_end, std::int64_t n, const Join& join) {
    Tiles::template zero<0>();
    if constexpr (V == 2) Tiles::template zero<1>();
    if constexpr (R == 2) Tiles::template zero<2>();
    if constexpr (R == 2 && V == 2) Tiles::template zero<3>();
    const Word *a = p.a + m * p.a_step, *b = p.b + n;
    const std::int64_t a_bytes = p.a_step * static_cast<std::int64_t>(sizeof(Word)), a_down = kSide * p.a_step;
    const std::int64_t b_bytes = p.b_pair * static_cast<std::int64_t>(sizeof(Word)), b_next = kGrain * p.b_pair;
    for (std::int64_t pairs = p.pairs; pairs > 0; pairs -= kGrain, a += kGrain, b += b_next) {
      Tiles::template load<6>(b, b_bytes);
      Tiles::template load<4>(a, a_bytes);
      Tiles::template dot<0, 4, 6>();
      if constexpr (V == 2) {
        Tiles::template load<7>(b + kSide, b_bytes);
        Tiles::template dot<1, 4, 7>();
      }
      if constexpr (R == 2) {
        Tiles::template load<5>(a + a_down, a_bytes);
        Tiles::template dot<2, 5, 6>();
        if constexpr (V == 2) Tiles::template dot<3, 5, 7>();
      }
    }
    if constexpr (kStoresOnly<Join>) {
      store<R, V>(join.c + m * join.step + n, join.step * static_cast<std::int64_t>(sizeof(float)), kSide, kSide * join.step);
    } else {
      alignas(64) float sums[R * V * kSide * kSide];
      store<R, V>(sums, kRowBytes, kSide * kSide, V * kSide * kSide);
      for (std::int64_t r = 0; r < R * kSide && m + r < m_end; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v)
          join(m + r, n + v * kSide, _mm512_load_ps(sums + ((r / kSide * V + v) * kSide + r % kSide) * kSide));
    }
  }

  // Tiles of C, `right` floats from one to the next along n and `down` along m.
  template <int R, int V>
  [[gnu::always_inline]] static void store(float* c, std::int64_t row_bytes, std::int64_t right, std::int64_t down) {
    Tiles::template store<0>(c, row_bytes);
    if constexpr (V == 2) Tiles::template store<1>(c + right, row_bytes);
    if constexpr (R == 2) Tiles::template store<2>(c + down, row_bytes);
    if constexpr (R == 2 && V == 2) Tiles::template store<3>(c + down + right, row_bytes);
  }
};

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
