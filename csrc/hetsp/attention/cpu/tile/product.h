// Matrix products on tiles of the accumulate type.
#pragma once

#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

// How a product joins what C holds. Each sum starts at 0 and joins once: long sums become sums of 64-term sums.
enum class Join { set, add, rescale_and_add };

template <class T>
struct Product {
  std::int64_t m, n, k;       // n: multiple of kLanes
  const T* a;                 // [m][k] by strides
  std::int64_t a_m, a_k;
  const T* b;                 // [k][n]
  std::int64_t b_k;
  T* c;                       // [m][n]
  std::int64_t c_m;
  const T* scale;             // [n] for rescale_and_add: C = C scale + A B
};

// R x V vectors of C in registers.
template <int R, int V, Join join, class T>
inline void block(const Product<T>& p, std::int64_t m0, std::int64_t n0) {
  Vec<T> sum[R][V] = {};
  const T* a = p.a + m0 * p.a_m;
  const T* b = p.b + n0;
  for (std::int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b_k) {
    Vec<T> row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = at(b + v * kWidth<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T x = a[r * p.a_m];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += x * row[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Vec<T>& c = at(p.c + (m0 + r) * p.c_m + n0 + v * kWidth<T>);
      if constexpr (join == Join::set) c = sum[r][v];
      if constexpr (join == Join::add) c += sum[r][v];
      if constexpr (join == Join::rescale_and_add) c = c * at(p.scale + n0 + v * kWidth<T>) + sum[r][v];
    }
}

// R rows at a time, then fewer.
template <int R, int V, Join join, class T>
inline void column(const Product<T>& p, std::int64_t m, std::int64_t n0) {
  for (; m + R <= p.m; m += R) block<R, V, join>(p, m, n0);
  if constexpr (R > 1) {
    if (m < p.m) column<R == 6 ? 4 : R / 2, V, join>(p, m, n0);
  }
}

// Blocks of rows x vectors as fast as any that fit the registers: 4 x 4, 8 x 2 and 8 x 1 of 32 (Zen 5, operands in the
// first-level cache: 277, 258 and 224 gigaflop/s, where 6 x 4 gave 264, 12 x 2 160 and 16 x 1 128), 6 x 2 of 16.
template <Join join, class T>
inline void multiply(const Product<T>& p) {
  constexpr int width = kWidth<T>;
  constexpr bool wide = HETSP_VECTOR_BYTES == 64;  // 32 registers, else 16
  std::int64_t n = 0;
  if constexpr (wide)
    for (; n + 4 * width <= p.n; n += 4 * width) column<4, 4, join>(p, 0, n);
  for (; n + 2 * width <= p.n; n += 2 * width) column<wide ? 8 : 6, 2, join>(p, 0, n);
  if (n < p.n) column<8, 1, join>(p, 0, n);
}

// C = A B, the sum over k cut into runs of kRun terms: sqrt(kRun) + sqrt(k / kRun) roundings instead of sqrt(k). Worth it
// for the short sums of scores and of dout . v, whose errors are not averaged over keys.
constexpr std::int64_t kRun = 16;
template <class T>
inline void multiply_in_runs(Product<T> p) {
  const std::int64_t total = p.k;
  p.k = total < kRun ? total : kRun;
  multiply<Join::set>(p);
  for (std::int64_t done = kRun; done < total; done += kRun) {
    p.a += kRun * p.a_k, p.b += kRun * p.b_k;
    p.k = total - done < kRun ? total - done : kRun;
    multiply<Join::add>(p);
  }
}

// The two masked products that must not pass on a NaN of a hidden pair, where 0 * NaN would.
// C[m][lane] += sum over visible keys of A[key][m] B[key][lane].
template <class T>
inline void multiply_visible_keys(const Product<T>& p, const TileMask& mask) {
  for (std::int64_t m = 0; m < p.m; ++m)
    for (std::int64_t lane = 0; lane < p.n; ++lane) {
      T sum = 0;
      for (std::int64_t key = 0; key < p.k; ++key)
        if (visible(mask, key, lane)) sum += p.a[m * p.a_m + key * p.a_k] * p.b[key * p.b_k + lane];
      T& c = p.c[m * p.c_m + lane];
      c = (p.scale != nullptr ? c * p.scale[lane] : c) + sum;
    }
}
// C[key][n] += sum over lanes that see the key of A[key][lane] B[lane][n].
template <class T>
inline void multiply_visible_rows(const Product<T>& p, const TileMask& mask) {
  for (std::int64_t key = 0; key < p.m; ++key)
    for (std::int64_t n = 0; n < p.n; ++n) {
      T sum = 0;
      for (std::int64_t lane = 0; lane < p.k; ++lane)
        if (visible(mask, key, lane)) sum += p.a[key * p.a_m + lane * p.a_k] * p.b[lane * p.b_k + n];
      p.c[key * p.c_m + n] += sum;
    }
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
