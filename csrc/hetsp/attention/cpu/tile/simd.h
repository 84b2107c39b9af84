// Vectors of one instruction set, in the compiler's vector types: the same text for every width.
//
// The files of this folder are compiled once per instruction set, with its options, its namespace HETSP_ISA and its
// HETSP_VECTOR_BYTES (CMakeLists.txt). Nothing outside namespace HETSP_ISA may be defined in them, not even by an inline
// function of a header: the linker would keep one copy for all, perhaps the one that only a newer CPU can run. Hence no std::
// templates, builtins only, and nothing of number.h but its types.
#pragma once

#include <cstdint>

#include "hetsp/attention/cpu/tile_math.h"

namespace hetsp::attention::cpu::HETSP_ISA {

template <class T>
struct Simd;
template <>
struct Simd<float> {
  using Int = std::int32_t;
  static constexpr int width = HETSP_VECTOR_BYTES / 4;
  typedef float Vec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
  typedef float Loose __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias, aligned(4)));
  typedef std::int32_t IntVec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
};
template <>
struct Simd<double> {
  using Int = std::int64_t;
  static constexpr int width = HETSP_VECTOR_BYTES / 8;
  typedef double Vec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
  typedef double Loose __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias, aligned(8)));
  typedef std::int64_t IntVec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
};

template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
using IntVec = typename Simd<T>::IntVec;
template <class T>
constexpr int kWidth = Simd<T>::width;

template <class T>
inline Vec<T>& at(T* p) {
  return *reinterpret_cast<Vec<T>*>(p);
}
template <class T>
inline const Vec<T>& at(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
inline Vec<T> all(T x) {
  return x - Vec<T>{};
}

constexpr float kInf = __builtin_inff();

constexpr std::int64_t pad(std::int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }
constexpr std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

inline bool visible(const TileMask& mask, std::int64_t key, std::int64_t lane) {
  return mask.low[lane] <= key && key < mask.high[lane];
}

// All bits set in the lanes [lane, lane + kWidth) that see `key`.
template <class T>
inline IntVec<T> seen(const TileMask& mask, std::int64_t key, std::int64_t lane) {
  typedef std::int32_t Narrow __attribute__((vector_size(kWidth<T> * sizeof(std::int32_t)), may_alias));
  const auto low = __builtin_convertvector(*reinterpret_cast<const Narrow*>(mask.low + lane), IntVec<T>);
  const auto high = __builtin_convertvector(*reinterpret_cast<const Narrow*>(mask.high + lane), IntVec<T>);
  const auto index = static_cast<typename Simd<T>::Int>(key);
  return (low <= index) & (high > index);
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
