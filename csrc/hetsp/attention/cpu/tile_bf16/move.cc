// Between tensors and tiles of bfloat16 pairs. What comes in float32 (a partial result's gradient) is rounded to bfloat16 on
// the way in.
#include "hetsp/attention/cpu/tile_bf16/move.h"

#include "hetsp/attention/cpu/tile/exact_dot.h"
#include "hetsp/attention/cpu/tile/simd.h"
#include "hetsp/attention/cpu/tile_bf16/grain.h"
#include "hetsp/attention/cpu/tile_bf16/pair.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// The lowest `count` bits, at most those of Mask.
template <class Mask>
Mask first(std::int64_t count) {
  constexpr std::int64_t most = 8 * sizeof(Mask);
  return static_cast<Mask>(count >= most ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1);
}

// Numbers [0, min(count, 32)) at `from`, zeros behind them; nothing behind them is read. count <= 0: zeros.
inline __m512i load_32(const BFloat16* from, std::int64_t count) {
  if (count >= 32) [[likely]]
    return _mm512_loadu_si512(from);
  return count <= 0 ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi16(first<__mmask32>(count), from);
}
inline __m512i load_32(const float* from, std::int64_t count) {
  if (count >= 32) [[likely]]
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(from + 16), _mm512_loadu_ps(from)));
  if (count <= 0) return _mm512_setzero_si512();
  const __m512 low = _mm512_maskz_loadu_ps(first<__mmask16>(count), from);
  const __m512 high = count <= 16 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(first<__mmask16>(count - 16), from + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Rounded to nearest even. The instruction takes subnormal numbers for 0: they are rare, and rounded as bits.
inline __m256i narrow(__m512 numbers) {
  constexpr int kSubnormal = 0x20;
  const __m256i rounded_16 = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers));
  const __mmask16 small = _mm512_fpclass_ps_mask(numbers, kSubnormal);
  if (small == 0) [[likely]]
    return rounded_16;
  const __m512i bits = reinterpret_cast<__m512i>(numbers);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  return _mm256_mask_mov_epi16(rounded_16, small, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}

// The first min(count, 16) numbers to a tensor.
inline void store_16(__m512 numbers, BFloat16* to, std::int64_t count) {
  if (count >= 16) [[likely]]
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), narrow(numbers));
  _mm256_mask_storeu_epi16(to, first<__mmask16>(count), narrow(numbers));
}
inline void store_16(__m512 numbers, float* to, std::int64_t count) {
  if (count >= 16) [[likely]]
    return _mm512_storeu_ps(to, numbers);
  _mm512_mask_storeu_ps(to, first<__mmask16>(count), numbers);
}

// 16 vectors of 16 words: in blocks of 4 x 4 words within each quarter of a vector, then quarters among vectors.
[[gnu::always_inline]] inline void transpose(__m512i (&x)[16]) {
  __m512i y[16];
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {
    const __m512i a = _mm512_unpacklo_epi32(x[g], x[g + 1]), b = _mm512_unpackhi_epi32(x[g], x[g + 1]);
    const __m512i c = _mm512_unpacklo_epi32(x[g + 2], x[g + 3]), d = _mm512_unpackhi_epi32(x[g + 2], x[g + 3]);
    y[g] = _mm512_unpacklo_epi64(a, c), y[g + 1] = _mm512_unpackhi_epi64(a, c);
    y[g + 2] = _mm512_unpacklo_epi64(b, d), y[g + 3] = _mm512_unpackhi_epi64(b, d);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i a = _mm512_shuffle_i32x4(y[i], y[i + 4], 0x88), b = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0x88);
    const __m512i c = _mm512_shuffle_i32x4(y[i], y[i + 4], 0xdd), d = _mm512_shuffle_i32x4(y[i + 8], y[i + 12], 0xdd);
    x[i] = _mm512_shuffle_i32x4(a, b, 0x88), x[i + 8] = _mm512_shuffle_i32x4(a, b, 0xdd);
    x[i + 4] = _mm512_shuffle_i32x4(c, d, 0x88), x[i + 12] = _mm512_shuffle_i32x4(c, d, 0xdd);
  }
}

template <class T>
void pack_lanes(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t lanes, std::int64_t dim, double, void* to) {
  for (std::int64_t lane = 0; lane < lanes; lane += kWords)
    for (std::int64_t i = 0; i < dim; i += 2 * kWords) {
      __m512i square[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r)
        square[r] = lane + r < rows ? load_32(from + (lane + r) * stride + i, dim - i) : _mm512_setzero_si512();
      transpose(square);
      Word* tile = static_cast<Word*>(to) + i / 2 * kTile + lane;
      const std::int64_t count = least(16, (grain_end(dim) - i) / 2);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r)
        if (r < count) _mm512_store_si512(tile + r * kTile, square[r]);
    }
}

template <class T>
void pack_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to) {
  auto* tile = static_cast<BFloat16*>(to);
  const std::int64_t dim_pad = row_step(dim);
  for (std::int64_t row = 0; row < rows; ++row, from += stride, tile += dim_pad)
    for (std::int64_t i = 0; i < dim_pad; i += 2 * kWords) {
      const __m512i numbers = load_32(from + i, dim - i);
      if (i + 2 * kWords <= dim_pad) {
        _mm512_storeu_si512(tile + i, numbers);
      } else {
        _mm256_store_si256(reinterpret_cast<__m256i*>(tile + i), _mm512_castsi512_si256(numbers));
      }
    }
}

// Pairs of numbers i of row `row` and the next, zeros from row `rows` on: low has those of [i, i + 16), high the next 16.
struct RowPair {
  __m512i low, high;
};
template <class T>
[[gnu::always_inline]] inline RowPair row_pair(const T* from, std::int64_t stride, std::int64_t row, std::int64_t rows,
                                               std::int64_t dim, std::int64_t i) {
  // Numbers 0, 32, 1, 33, ... of two rows of 32, then 16, 48, ...
  const __m512i lower = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8,  //
                                         39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i upper = _mm512_add_epi16(lower, _mm512_set1_epi16(16));
  const __m512i even = row < rows ? load_32(from + row * stride + i, dim - i) : _mm512_setzero_si512();
  const __m512i odd = row + 1 < rows ? load_32(from + (row + 1) * stride + i, dim - i) : _mm512_setzero_si512();
  return {_mm512_permutex2var_epi16(even, lower, odd), _mm512_permutex2var_epi16(even, upper, odd)};
}

template <class T>
void pack_pairs(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to) {
  auto* tile = static_cast<Word*>(to);
  const std::int64_t dim_pad = pad(dim);
  for (std::int64_t row = 0; row < grain_end(rows); row += 2, tile += dim_pad)
    for (std::int64_t i = 0; i < dim_pad; i += 2 * kWords) {
      const RowPair pair = row_pair(from, stride, row, rows, dim, i);
      _mm512_store_si512(tile + i, pair.low);
      if (i + kWords < dim_pad) _mm512_store_si512(tile + i + kWords, pair.high);
    }
}

// [dim][kTile], rows side by side: 16 x 16 pairs turned at a time.
template <class T>
void pack_turned(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to) {
  for (std::int64_t row = 0; row < rows; row += 2 * kWords)
    for (std::int64_t i = 0; i < dim; i += 2 * kWords) {
      __m512i low[16], high[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        const RowPair pair = row_pair(from, stride, row + 2 * r, rows, dim, i);
        low[r] = pair.low, high[r] = pair.high;
      }
      transpose(low), transpose(high);
      Word* tile = static_cast<Word*>(to) + i * (kTile / 2) + row / 2;
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        if (i + r < dim) _mm512_store_si512(tile + r * (kTile / 2), low[r]);
        if (i + kWords + r < dim) _mm512_store_si512(tile + (kWords + r) * (kTile / 2), high[r]);
      }
    }
}

template <class T>
void pack_columns(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim, void* to) {
  if constexpr (Products::kColumnsArePairs) {
    pack_pairs(from, stride, rows, dim, to);
  } else {
    pack_turned(from, stride, rows, dim, to);
  }
}

template <class T>
bool nonfinite(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t dim) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  __mmask32 found = 0;
  for (std::int64_t row = 0; row < rows; ++row, from += stride)
    for (std::int64_t i = 0; i < dim; i += 2 * kWords)
      found |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(load_32(from + i, dim - i), exponent), exponent);
  return found != 0;
}

// x / divisor by its reciprocal, as in tile/move.cc: the remainder, exact by a fused multiply-add, corrects the quotient to the
// nearest number. An infinite x has no remainder.
inline __m512 quotient(__m512 x, __m512 divisor, __m512 reciprocal) {
  const __m512 close = _mm512_mul_ps(x, reciprocal), remainder = _mm512_fnmadd_ps(close, divisor, x);
  const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_sub_ps(remainder, remainder), _mm512_setzero_ps(), _CMP_EQ_OQ);
  return _mm512_mask3_fmadd_ps(remainder, reciprocal, close, finite);
}

template <class T>
void store_lanes(const float* from, std::int64_t rows, std::int64_t dim, const float* lane_factor, const float* lane_divisor,
                 T* to, std::int64_t stride, Store) {
  const __m512 one = _mm512_set1_ps(1.0F);
  for (std::int64_t lane = 0; lane < rows; lane += kWords) {
    const __m512 factor = _mm512_load_ps(lane_factor + lane);
    const __m512 divisor = lane_divisor != nullptr ? _mm512_load_ps(lane_divisor + lane) : one;
    const __m512 reciprocal = _mm512_div_ps(one, divisor);
    const __mmask16 wanted = _mm512_cmp_ps_mask(factor, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    const std::int64_t count = least(kWords, rows - lane);
    for (std::int64_t i = 0; i < dim; i += kWords) {
      __m512i square[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        const float* row = from + least(i + r, dim - 1) * kTile + lane;  // the last again where there is none: not stored
        __m512 value = _mm512_mul_ps(_mm512_load_ps(row), factor);
        if (lane_divisor != nullptr) value = quotient(value, divisor, reciprocal);
        square[r] = reinterpret_cast<__m512i>(_mm512_maskz_mov_ps(wanted, value));
      }
      transpose(square);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r)
        if (r < count) store_16(reinterpret_cast<__m512>(square[r]), to + (lane + r) * stride + i, dim - i);
    }
  }
}

template <class T>
void store_rows(const float* from, std::int64_t rows, std::int64_t dim, float factor, T* to, std::int64_t stride, Store) {
  const __m512 times = _mm512_set1_ps(factor);
  for (std::int64_t row = 0; row < rows; ++row, from += pad(dim), to += stride)
    for (std::int64_t i = 0; i < dim; i += kWords) store_16(_mm512_mul_ps(_mm512_load_ps(from + i), times), to + i, dim - i);
}

// Eight numbers, as many as `some` has bits, in double.
inline __m512d widened(__m128i numbers) {
  return _mm512_cvtps_pd(reinterpret_cast<__m256>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(numbers), 16)));
}
inline __m512d load_8(const BFloat16* from, __mmask8 some) { return widened(_mm_maskz_loadu_epi16(some, from)); }
inline __m512d load_8(const float* from, __mmask8 some) { return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(some, from)); }
// As the tile holds them: rounded to bfloat16.
inline __m512d load_8_packed(const BFloat16* from, __mmask8 some) { return load_8(from, some); }
inline __m512d load_8_packed(const float* from, __mmask8 some) {
  return widened(reinterpret_cast<__m128i>(_mm256_cvtneps_pbh(_mm256_maskz_loadu_ps(some, from))));
}

// In the order of tree(), so that a row that sees one key, out = v, gets dout . v to the last bit (few_dp in backward.cc):
// of a float32 dout what has been packed.
template <class T>
void delta(const T* out, std::int64_t out_stride, const T* dout, std::int64_t dout_stride, std::int64_t rows, std::int64_t dim,
           float* result) {
  const std::int64_t whole = dim / 8 * 8;
  const auto rest = first<__mmask8>(dim - whole);
  for (std::int64_t row = 0; row < rows; ++row, out += out_stride, dout += dout_stride) {
    __m512d sum = _mm512_setzero_pd();
    const auto add = [&](std::int64_t i, __mmask8 some) {
      const __m512d o = load_8(out + i, some);
      const __mmask8 wanted = _mm512_cmp_pd_mask(o, _mm512_setzero_pd(), _CMP_NEQ_UQ);
      sum = _mm512_mask3_fmadd_pd(o, load_8_packed(dout + i, some), sum, wanted);
    };
    for (std::int64_t i = 0; i < whole; i += 8) add(i, 0xff);
    if (rest != 0) add(whole, rest);
    alignas(64) double part[8];
    _mm512_store_pd(part, sum);
    result[row] = static_cast<float>(tree(part));
  }
}

}  // namespace

template <class T>
Move<T> pair_move() {
  return {pack_lanes<T>, pack_rows<T>, pack_pairs<T>, pack_columns<T>, nonfinite<T>, store_lanes<T>, store_rows<T>, delta<T>};
}

template Move<BFloat16> pair_move();
template Move<float> pair_move();

}  // namespace hetsp::attention::cpu::HETSP_ISA
