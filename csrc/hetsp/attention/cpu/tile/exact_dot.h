// Sums of products in double, in one order for both layouts: term i joins the partial sum i mod 8, and those join as a tree. A
// row that sees one key has out = v, and so its delta is its dout . v to the last bit, which is as it must be: their difference
// is all there is.
#pragma once

#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

typedef double Eight __attribute__((vector_size(64), may_alias));
template <class T>
struct EightOf {
  typedef T Loose __attribute__((vector_size(8 * sizeof(T)), may_alias, aligned(sizeof(T))));
};

template <class T>
inline Eight eight(const T* from) {
  return __builtin_convertvector(*reinterpret_cast<const typename EightOf<T>::Loose*>(from), Eight);
}

template <class X>
inline X tree(const X (&sum)[8]) {
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}
inline double tree(Eight sum) {
  const double parts[8] = {sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7]};
  return tree(parts);
}

// Of 8 lanes: a[i] b[i][lane], b kTile apart.
template <class T>
inline Eight lanes_dot(const T* a, const T* b, std::int64_t count) {
  Eight sum[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
#pragma GCC unroll 8
    for (int part = 0; part < 8; ++part) sum[part] += static_cast<double>(a[i + part]) * eight(b + (i + part) * kTile);
  for (int part = 0; i + part < count; ++part) sum[part] += static_cast<double>(a[i + part]) * eight(b + (i + part) * kTile);
  return tree(sum);
}

// sum += a b, where a = 0 makes the term 0 whatever b is. Numbers past the ends are 0.
inline void add_terms(Eight a, Eight b, Eight& sum) {
  const Eight zero = {};
  sum += a * (a == zero ? zero : b);
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
