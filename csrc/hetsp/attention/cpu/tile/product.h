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

// How A lies: rows of consecutive k (a_k = 1), or the transpose of such (a_m = 1). Known at compile time, so that the addresses
// of a block's numbers are few registers and displacements.
enum class A { rows, columns };

// R x V vectors of C in registers.
template <int R, int V, Join join, A a, class T>
inline void block(const Product<T>& p, std::int64_t m0, std::int64_t n0) {
  constexpr int kBase = 4, kBases = (R + kBase - 1) / kBase;  // rows of A that share an address register
  Vec<T> sum[R][V] = {};
  const T* bases[kBases];
#pragma GCC unroll 8
  for (int i = 0; i < kBases; ++i) bases[i] = p.a + (m0 + i * kBase) * p.a_m;
  const T *column = p.a + m0, *b = p.b + n0;
  T* to = p.c + m0 * p.c_m + n0;  // and the other fields in registers: stores to C may change `p`, for all the compiler knows
  [[maybe_unused]] const T* scale = join == Join::rescale_and_add ? p.scale + n0 : nullptr;
  const std::int64_t a_m = p.a_m, a_k = p.a_k, b_k = p.b_k, c_m = p.c_m, last = p.k;
  for (std::int64_t k = 0; k < last; ++k, b += b_k, column += a_k) {
    Vec<T> row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = at(b + v * kWidth<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const T x = a == A::rows ? bases[r / kBase][r % kBase * a_m + k] : column[r];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += x * row[v];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Vec<T>& c = at(to + r * c_m + v * kWidth<T>);
      if constexpr (join == Join::set) c = sum[r][v];
      if constexpr (join == Join::add) c += sum[r][v];
      if constexpr (join == Join::rescale_and_add) c = c * at(scale + v * kWidth<T>) + sum[r][v];
    }
}

// Rows of C per block of V vectors: sums enough for two multiply-adds in each clock of a latency of four, registers enough for
// V vectors of B and a broadcast, and few loads per multiply-add. Of 32 registers 4 x 4, 8 x 2 and 16 x 1 were as fast as any:
// a whole tile's forward made 238 gigaflop/s, with 6 x 4 232; one cut by the diagonal 159, with 8 x 1 149 (float32, Zen 5).
constexpr int kMostVectors = HETSP_VECTOR_BYTES == 64 ? 4 : 2;
constexpr int block_rows(int vectors) {
  if (HETSP_VECTOR_BYTES != 64) return vectors == 2 ? 6 : 12;
  return vectors == 1 ? 16 : vectors == 4 ? 4 : 8;
}

template <int R, int V, Join join, A a, class T>
inline void blocks(const Product<T>& p, std::int64_t m, std::int64_t n0) {
  for (; m + R <= p.m; m += R) block<R, V, join, a>(p, m, n0);
  if constexpr (R > 1) {
    constexpr int rest = R > 8 ? 8 : R > 4 ? 4 : R / 2;
    if (m < p.m) blocks<rest, V, join, a>(p, m, n0);
  }
}

template <Join join, A a, class T>
inline void multiply_by(const Product<T>& p) {
  constexpr std::int64_t width = kWidth<T>, step = kMostVectors * width;
  std::int64_t n = 0;
  for (; n + step <= p.n; n += step) blocks<block_rows(kMostVectors), kMostVectors, join, a>(p, 0, n);
  switch ((p.n - n) / width) {
    case 3:
      return blocks<block_rows(3), 3, join, a>(p, 0, n);
    case 2:
      return blocks<block_rows(2), 2, join, a>(p, 0, n);
    case 1:
      return blocks<block_rows(1), 1, join, a>(p, 0, n);
    default:
      return;
  }
}

// One of a_m and a_k is 1.
template <Join join, class T>
inline void multiply(const Product<T>& p) {
  p.a_k == 1 ? multiply_by<join, A::rows>(p) : multiply_by<join, A::columns>(p);
}

// C = A B, the sum over k cut into runs of kRun terms: sqrt(kRun) + sqrt(k / kRun) roundings instead of sqrt(k).
constexpr std::int64_t kRun = 64;
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
