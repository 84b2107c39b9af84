#include "hetsp/attention/cpu/tile/move.h"

#include <type_traits>

#include "hetsp/attention/cpu/tile/convert.h"
#include "hetsp/attention/cpu/tile/exact_dot.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

template <class T>
using Acc = typename AccOf<T>::type;

// Elements [i, i + kWidth) of a row of `dim`.
template <class T>
Vec<Acc<T>> widen_at(const T* row, std::int64_t i, std::int64_t dim) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  return i + width <= dim ? widen(row + i) : widen_some(row + i, dim - i);
}

// A vector that is a whole cache line, at the line's begin, may pass the caches; narrower vectors would leave lines in halves.
template <class T>
void narrow_whole(Vec<Acc<T>> value, T* to, [[maybe_unused]] Store how) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<T, float>)
    if (how == Store::streamed && reinterpret_cast<std::uintptr_t>(to) % 64 == 0) return _mm512_stream_ps(to, value);
#endif
  narrow(value, to);
}
template <class T>
void narrow_at(Vec<Acc<T>> value, T* row, std::int64_t i, std::int64_t dim, Store how) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  i + width <= dim ? narrow_whole(value, row + i, how) : narrow_some(value, row + i, dim - i);
}

template <class T>
void pack_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  auto* tile = static_cast<Acc<T>*>(to);
  const std::int64_t whole = dim / width * width, dim_pad = pad(dim);
  for (std::int64_t row = 0; row < rows; ++row, from += stride, tile += dim_pad) {
    std::int64_t i = 0;
    for (; i < whole; i += width) at(tile + i) = widen(from + i);
    if (i < dim) at(tile + i) = widen_some(from + i, dim - i), i += width;
    for (; i < dim_pad; i += width) at(tile + i) = Vec<Acc<T>>{};
  }
}

template <class T>
void pack_lanes(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t lanes, std::int64_t dim, double factor,
                void* to) {
  constexpr int width = kWidth<Acc<T>>;
  auto* tile = static_cast<Acc<T>*>(to);
  const Scale<Acc<T>> scale(factor);
  for (std::int64_t lane = 0; lane < lanes; lane += width)
    for (std::int64_t i = 0; i < dim; i += width) {
      const T* corner = from + lane * stride + i;
      Acc<T>* column = tile + i * kTile + lane;
      Vec<Acc<T>> square[width];
      if (lane + width <= rows && i + width <= dim) {
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) square[r] = scale(widen(corner + r * stride));
        transpose<Acc<T>>(square);
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) at(column + r * kTile) = square[r];
      } else {
        for (int r = 0; r < width; ++r)
          square[r] = lane + r < rows ? scale(widen_at(corner + r * stride, 0, dim - i)) : Vec<Acc<T>>{};
        transpose<Acc<T>>(square);
        for (int r = 0; r < least(width, dim - i); ++r) at(column + r * kTile) = square[r];
      }
    }
}

template <class T>
bool nonfinite(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  constexpr int chains = 4;         // a sum of one would wait for each addition
  Vec<Acc<T>> poison[chains] = {};  // 0 x is 0 for finite x, NaN else
  std::int64_t row = 0;
  for (; row + chains <= rows; row += chains, from += chains * stride)
    for (std::int64_t i = 0; i < dim; i += width)
#pragma GCC unroll 4
      for (int chain = 0; chain < chains; ++chain) poison[chain] += widen_at(from + chain * stride, i, dim) * Acc<T>(0);
  for (; row < rows; ++row, from += stride)
    for (std::int64_t i = 0; i < dim; i += width) poison[0] += widen_at(from, i, dim) * Acc<T>(0);
  const Vec<Acc<T>> all_four = (poison[0] + poison[1]) + (poison[2] + poison[3]);
  for (int lane = 0; lane < width; ++lane)
    if (all_four[lane] != 0) return true;
  return false;
}

// x / divisor by its reciprocal: the remainder, exact by a fused multiply-add, corrects the quotient to the nearest number, so
// that equal sums give 1. (Markstein, IBM J. Res. Dev. 34 (1990).) An infinite x has no remainder.
template <class Lane>
Vec<Lane> quotient(Vec<Lane> x, Vec<Lane> divisor, Vec<Lane> reciprocal) {
#if defined(__FMA__)
  const Vec<Lane> first = x * reciprocal, remainder = x - first * divisor;
  return remainder * 0 == 0 ? first + remainder * reciprocal : first;
#else
  return (void)reciprocal, x / divisor;
#endif
}

template <class T>
void store_lanes(const Acc<T>* from, std::int64_t rows, std::int64_t dim, const Acc<T>* lane_factor, const Acc<T>* lane_divisor,
                 T* to, std::int64_t stride, Store how) {
  constexpr int width = kWidth<Acc<T>>;
  const Vec<Acc<T>> zero = {}, one = all(Acc<T>(1));
  for (std::int64_t lane = 0; lane < rows; lane += width) {
    const Vec<Acc<T>> factor = at(lane_factor + lane), divisor = lane_divisor != nullptr ? at(lane_divisor + lane) : one;
    const Vec<Acc<T>> reciprocal = one / divisor;
    const auto value = [&](std::int64_t column) {
      Vec<Acc<T>> x = at(from + column * kTile + lane) * factor;
      if (lane_divisor != nullptr) x = quotient<Acc<T>>(x, divisor, reciprocal);
      return factor == zero ? zero : x;
    };
    for (std::int64_t i = 0; i < dim; i += width) {
      T* corner = to + lane * stride + i;
      Vec<Acc<T>> square[width];
      if (lane + width <= rows && i + width <= dim) {
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) square[r] = value(i + r);
        transpose<Acc<T>>(square);
#pragma GCC unroll 16
        for (int r = 0; r < width; ++r) narrow_whole(square[r], corner + r * stride, how);
      } else {
        for (int r = 0; r < width; ++r) square[r] = i + r < dim ? value(i + r) : zero;
        transpose<Acc<T>>(square);
        for (std::int64_t r = 0; r < least(width, rows - lane); ++r) narrow_at(square[r], corner + r * stride, 0, dim - i, how);
      }
    }
  }
}

template <class T>
void store_rows(const Acc<T>* from, std::int64_t rows, std::int64_t dim, Acc<T> factor, T* to, std::int64_t stride, Store how) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  for (std::int64_t row = 0; row < rows; ++row, from += pad(dim), to += stride)
    for (std::int64_t i = 0; i < dim; i += width) narrow_at(at(from + i) * factor, to, i, dim, how);
}

// Elements [i, i + 16) of a row of `dim`, 0 past its end.
template <class T>
void load_16(const T* row, std::int64_t i, std::int64_t dim, Acc<T>* to) {
  constexpr std::int64_t width = kWidth<Acc<T>>;
  for (std::int64_t j = 0; j < 16; j += width) at(to + j) = i + j < dim ? widen_at(row, i + j, dim) : Vec<Acc<T>>{};
}

template <class T>
void delta(const T* out, std::int64_t out_stride, const T* dout, std::int64_t dout_stride, std::int64_t rows, std::int64_t dim,
           Acc<T>* result) {
  for (std::int64_t row = 0; row < rows; ++row, out += out_stride, dout += dout_stride) {
    Eight sum = {};
    for (std::int64_t i = 0; i < dim; i += 16) {
      alignas(64) Acc<T> a[16], b[16];
      load_16(out, i, dim, a), load_16(dout, i, dim, b);
      add_terms(eight(a), eight(b), sum);
      add_terms(eight(a + 8), eight(b + 8), sum);
    }
    result[row] = static_cast<Acc<T>>(tree(sum));
  }
}

}  // namespace

template <class T>
Move<T> wide_move() {
  return {pack_lanes<T>, pack_rows<T>, pack_rows<T>, pack_rows<T>, nonfinite<T>, store_lanes<T>, store_rows<T>, delta<T>};
}

template Move<float> wide_move();
template Move<double> wide_move();
template Move<BFloat16> wide_move();
template Move<Float16> wide_move();

}  // namespace hetsp::attention::cpu::HETSP_ISA
