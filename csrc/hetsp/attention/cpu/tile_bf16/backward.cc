// A backward step on packed bfloat16: scores, weights and their gradients in float, rounded to bfloat16 (each by itself,
// relative 2^-9) only as factors of the last three products; all sums in float.
//
// By blocks of keys: their scores and dout . v stay in the first-level cache until they have become weights.
#include "hetsp/attention/cpu/tile_bf16/backward.h"

#include "hetsp/attention/cpu/tile/exact_dot.h"
#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile_bf16/columns.h"
#include "hetsp/attention/cpu/tile_bf16/grain.h"
#include "hetsp/attention/cpu/tile_bf16/power.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

constexpr std::int64_t kRowStride = kTile / 2;  // words of a row of weights

constexpr std::int64_t kMostKeys = Products::kKeyBlock;  // of a block
static_assert(kMostKeys % kLanes == 0 && kMostKeys >= Columns::kKeyBlock);

struct Scratch {
  alignas(64) float score[kMostKeys * kTile];  // [key of the block][lane]: q . k
  alignas(64) float dp[kMostKeys * kTile];     // dout . v
  alignas(64) Word weights[kTile * kRowStride];         // rows [key][lane pair]: p
  alignas(64) Word ds_rows[kTile * kRowStride];         // the same of ds
  alignas(64) Word ds_pairs[kTile / 2 * kTile];         // [key pair][lane]
};

// dout . v of rows that see few keys: dp - delta nearly cancels there, and is all that there is, so each pair gets an exact
// sum, in the order of delta's.
constexpr std::int32_t kFewKeys = 8;
void few_dp(const BackwardTile<float>& t, Scratch& s, KeyRange keys, std::int64_t lane_begin, std::int64_t lane_end) {
  const std::int64_t pairs = (t.dim_v + 1) / 2;
  for (std::int64_t key = keys.begin; key < keys.end; ++key) {
    const Word* v = static_cast<const Word*>(t.v) + key * row_step(t.dim_v) / 2;
    for (std::int64_t lane = lane_begin; lane < lane_end; lane += 8) {
      const Word* dout = static_cast<const Word*>(t.dout) + lane;
      __m512d sum[8] = {};
      for (std::int64_t i = 0; i < pairs; i += 4)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          if (i + j >= pairs) break;
          const __m256i both = _mm256_load_si256(reinterpret_cast<const __m256i*>(dout + (i + j) * kTile));
          const __m256i odd = _mm256_and_si256(both, _mm256_set1_epi32(static_cast<int>(0xffff0000U)));
          const auto term = [&](__m256i numbers, int which, __m512d& to) {
            to = _mm512_fmadd_pd(_mm512_cvtps_pd(reinterpret_cast<__m256>(numbers)), _mm512_set1_pd(number(v[i + j], which)),
                                 to);
          };
          term(_mm256_slli_epi32(both, 16), 0, sum[2 * j]);
          term(odd, 1, sum[2 * j + 1]);
        }
      _mm256_store_ps(s.dp + (key - keys.begin) * kTile + lane, _mm512_cvtpd_ps(tree(sum)));
    }
  }
}

// C[m][n] of the block = A[key] . B[lane].
void block_product(const void* a, const void* b, std::int64_t dim, KeyRange keys, std::int64_t lane, std::int64_t lane_end,
                   float* c) {
  const std::int64_t a_step = row_step(dim) / 2;
  const Dots<Along::pairs> product{grain_end(dim) / 2, static_cast<const Word*>(a) + keys.begin * a_step, a_step,
                                   static_cast<const Word*>(b), kTile};
  Products::dots(product, 0, keys.end - keys.begin, lane, lane_end, Into{c, kTile});
}

// What the gradient of one column's weights needs of its lanes.
class ColumnGradient {
 public:
  ColumnGradient(const BackwardTile<float>& t, std::int64_t lane)
      : factor_(_mm512_set1_ps(t.factor)),
        cap_(_mm512_set1_ps(t.cap)),
        lse_high_(_mm512_load_ps(t.lse_high + lane)),
        lse_low_(_mm512_load_ps(t.lse_low + lane)),
        delta_(_mm512_load_ps(t.delta + lane)),
        low_(t.mask->cut ? _mm512_load_si512(t.mask->low + lane) : _mm512_setzero_si512()),
        high_(t.mask->cut ? _mm512_load_si512(t.mask->high + lane) : _mm512_setzero_si512()),
        rows_(static_cast<__mmask16>(t.rows - lane >= kWords ? 0xffff : (1 << (t.rows - lane)) - 1)) {}

  struct Result {
    __m512 weight, gradient;
  };
  template <bool cut, bool capped>
  [[nodiscard]] Result operator()(const float* score, const float* dp, std::int64_t key) const {
    const __mmask16 shown = cut ? seen(key) : rows_;
    __m512 x, slope;
    if constexpr (capped) {
      const __m512 squashed = tanh(_mm512_mul_ps(_mm512_load_ps(score), factor_));
      slope = _mm512_fnmadd_ps(squashed, squashed, _mm512_set1_ps(1.0F));
      x = _mm512_fmsub_ps(squashed, cap_, lse_high_);
    } else {
      x = _mm512_fmsub_ps(_mm512_load_ps(score), factor_, lse_high_);
    }
    const __m512 weight = _mm512_maskz_mov_ps(shown, power<3>(_mm512_sub_ps(x, lse_low_)));
    __m512 gradient = _mm512_sub_ps(_mm512_load_ps(dp), delta_);
    if constexpr (capped) gradient = _mm512_mul_ps(gradient, slope);
    return {weight, _mm512_maskz_mul_ps(shown, weight, gradient)};
  }

 private:
  [[nodiscard]] __mmask16 seen(std::int64_t key) const {
    const __m512i index = _mm512_set1_epi32(static_cast<int>(key));
    return _mm512_mask_cmpgt_epi32_mask(_mm512_mask_cmple_epi32_mask(rows_, low_, index), high_, index);
  }
  __m512 factor_, cap_, lse_high_, lse_low_, delta_;
  __m512i low_, high_;
  __mmask16 rows_;
};

// Keys j and j + 1 of one column, from float to the forms of the last three products.
void store_rows_of_two(Word* rows, std::int64_t key, std::int64_t lane, __m512i both) {
  auto* even = reinterpret_cast<__m256i*>(rows + key * kRowStride + lane / 2);
  auto* odd = reinterpret_cast<__m256i*>(rows + (key + 1) * kRowStride + lane / 2);
  _mm256_store_si256(even, _mm512_castsi512_si256(both));
  _mm256_store_si256(odd, _mm512_extracti64x4_epi64(both, 1));
}

// Zeros for the columns about [lane, lane_end) that the sums over rows take, too.
void pad_rows(Word* rows, KeyRange keys, std::int64_t lane, std::int64_t lane_end) {
  const auto clear = [=](std::int64_t at, std::int64_t end) {
    for (; at < end; at += kWords)
      for (std::int64_t key = keys.begin; key < keys.end; ++key)
        _mm256_store_si256(reinterpret_cast<__m256i*>(rows + key * kRowStride + at / 2), _mm256_setzero_si256());
  };
  clear(grain_begin(lane), lane);
  clear(lane_end, grain_end(lane_end));
}

template <bool cut, bool capped>
void softmax_gradient(const BackwardTile<float>& t, Scratch& s, KeyRange keys, std::int64_t lane_begin, std::int64_t lane_end) {
  for (std::int64_t lane = lane_begin; lane < lane_end; lane += kWords) {
    const ColumnGradient gradient(t, lane);
    for (std::int64_t key = keys.begin; key < keys.end; key += 2) {  // begins are even
      const float *score = s.score + (key - keys.begin) * kTile + lane, *dp = s.dp + (key - keys.begin) * kTile + lane;
      const auto even = gradient.operator()<cut, capped>(score, dp, key);
      auto odd = decltype(even){_mm512_setzero_ps(), _mm512_setzero_ps()};
      if (key + 1 < keys.end) odd = gradient.operator()<cut, capped>(score + kTile, dp + kTile, key + 1);
      store_rows_of_two(s.weights, key, lane, rounded(even.weight, odd.weight));
      const __m512i ds = rounded(even.gradient, odd.gradient);
      store_rows_of_two(s.ds_rows, key, lane, ds);
      _mm512_store_si512(s.ds_pairs + key / 2 * kTile + lane, interleaved(ds));
    }
  }
}

// C[key][i] += sum over rows of A[key][row] B[row][i], rows of the lanes [lane, lane_end).
void add_rows(const BackwardTile<float>& t, const Word* a, const void* b, std::int64_t dim, KeyRange keys, std::int64_t lane,
              std::int64_t lane_end, float* c) {
  const std::int64_t first = grain_begin(lane) / 2, pairs = grain_end(least(lane_end, t.rows)) / 2 - first;
  const std::int64_t dim_pad = pad(dim);
  if (pairs <= 0) return;
  const Dots<Along::pairs> product{pairs, a + first, kRowStride, static_cast<const Word*>(b) + first * dim_pad, dim_pad};
  Products::dots(product, keys.begin, keys.end, 0, dim_pad, [=](std::int64_t key, std::int64_t i, __m512 sum) {
    float* to = c + key * dim_pad + i;
    _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum));
  });
}

// dq[i][lane] += sum over keys of k[key][i] ds[key][lane].
void add_keys(const BackwardTile<float>& t, Scratch& s, KeyRange keys, std::int64_t lane, std::int64_t lane_end) {
  const auto clear = [&](std::int64_t key, std::int64_t end) {  // what the sum takes beyond the keys
    for (; key < end; key += 2)
      for (std::int64_t n = lane; n < lane_end; n += kWords)
        _mm512_store_si512(s.ds_pairs + key / 2 * kTile + n, _mm512_setzero_si512());
  };
  clear(grain_begin(keys.begin), keys.begin);
  clear((keys.end + 1) / 2 * 2, grain_end(keys.end));
  const auto join = [dq = t.dq_t](std::int64_t i, std::int64_t n, __m512 sum) {
    float* to = dq + i * kTile + n;
    _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum));
  };
  Products::dots_over_keys(t.k_columns, t.dim, keys, s.ds_pairs, kTile, lane, lane_end, join);
}

bool visible_row(const BackwardTile<float>& t, std::int64_t key, std::int64_t lane) {
  return t.mask->low[lane] <= key && key < t.mask->high[lane];
}

// The same two, term by term, of what is seen alone: 0 times a hidden NaN would be NaN.
void add_seen_rows(const BackwardTile<float>& t, const Word* a, const void* b, std::int64_t dim, float* c) {
  const auto* pairs = static_cast<const Word*>(b);
  const std::int64_t dim_pad = pad(dim);
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t i = 0; i < dim; ++i) {
      float sum = 0;
      for (std::int64_t row = 0; row < t.rows; ++row)
        if (visible_row(t, key, row))
          sum += number(a[key * kRowStride + row / 2], row % 2) * number(pairs[row / 2 * dim_pad + i], row % 2);
      c[key * dim_pad + i] += sum;
    }
}
void add_seen_keys(const BackwardTile<float>& t, const Scratch& s) {
  for (std::int64_t i = 0; i < t.dim; ++i)
    for (std::int64_t row = 0; row < t.rows; ++row) {
      float sum = 0;
      for (std::int64_t key = 0; key < t.keys; ++key)
        if (visible_row(t, key, row))
          sum += Products::column(t.k_columns, t.dim, key, i) * number(s.ds_pairs[key / 2 * kTile + row], key % 2);
      t.dq_t[i * kTile + row] += sum;
    }
}

// One block of keys against the columns that see some of them: weights, their gradients, and dk, dv.
void block(const BackwardTile<float>& t, Scratch& s, KeyRange keys, std::int64_t lane, std::int64_t lane_end) {
  block_product(t.k, t.q, t.dim, keys, lane, lane_end, s.score);
  if (t.mask->widest <= kFewKeys) {
    few_dp(t, s, keys, lane, lane_end);
  } else {
    block_product(t.v, t.dout, t.dim_v, keys, lane, lane_end, s.dp);
  }
  if (t.mask->cut) {
    t.cap != 0 ? softmax_gradient<true, true>(t, s, keys, lane, lane_end)
               : softmax_gradient<true, false>(t, s, keys, lane, lane_end);
  } else {
    t.cap != 0 ? softmax_gradient<false, true>(t, s, keys, lane, lane_end)
               : softmax_gradient<false, false>(t, s, keys, lane, lane_end);
  }
  if (t.careful) return;
  pad_rows(s.weights, keys, lane, lane_end), pad_rows(s.ds_rows, keys, lane, lane_end);
  add_rows(t, s.weights, t.dout_pairs, t.dim_v, keys, lane, lane_end, t.dv);
  add_rows(t, s.ds_rows, t.q_pairs, t.dim, keys, lane, lane_end, t.dk);
}

}  // namespace

std::size_t backward_scratch_bytes() { return sizeof(Scratch); }

void backward(const BackwardTile<float>& t) {
  Scratch& s = *static_cast<Scratch*>(t.scratch);
  if (!t.mask->cut) {
    for (std::int64_t key = 0; key < t.keys; key += kMostKeys) block(t, s, {key, least(key + kMostKeys, t.keys)}, 0, t.lanes);
    return add_keys(t, s, {0, t.keys}, 0, t.lanes);
  }
  const Columns columns(*t.mask, t.lanes, t.keys);
  columns.for_each_key_block(
      [&](KeyRange keys, std::int64_t lane, std::int64_t lane_end) { block(t, s, keys, lane, lane_end); });
  if (t.careful) {
    add_seen_rows(t, s.weights, t.dout_pairs, t.dim_v, t.dv);
    add_seen_rows(t, s.ds_rows, t.q_pairs, t.dim, t.dk);
    return add_seen_keys(t, s);
  }
  columns.for_each_run([&](KeyRange keys, std::int64_t lane, std::int64_t lane_end) { add_keys(t, s, keys, lane, lane_end); });
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
