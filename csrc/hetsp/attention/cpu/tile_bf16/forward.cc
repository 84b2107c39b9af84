// A forward step on packed bfloat16: scores in float, weights rounded to bfloat16, both products by pairs.
//
// The weights of a row are at most 1 and rounded relative to 2^-9, each by itself; the row's sum is that of the weights before
// rounding. Summing the rounded ones would make out of v = 1 exactly 1, but lse, which is float32 and the origin of every
// weight of the backward, would then be wrong in the 10th bit; rounding errors of the weights average out over the keys.
#include "hetsp/attention/cpu/tile_bf16/forward.h"

#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile_bf16/columns.h"
#include "hetsp/attention/cpu/tile_bf16/grain.h"
#include "hetsp/attention/cpu/tile_bf16/power.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// Scores [key][kTile] become pairs of weights in their place: those of keys j, j + 1 (j even) lie at row j.
constexpr std::int64_t kPairStride = 2 * kTile;

// Scores of a column's keys and the mask of its lanes.
class Column {
 public:
  Column(const ForwardTile<float>& tile, std::int64_t lane)
      : scores_(static_cast<float*>(tile.scratch) + lane),
        low_(tile.mask->cut ? _mm512_load_si512(tile.mask->low + lane) : _mm512_setzero_si512()),
        high_(tile.mask->cut ? _mm512_load_si512(tile.mask->high + lane) : _mm512_setzero_si512()) {}

  [[nodiscard]] __m512 score(std::int64_t key) const { return _mm512_load_ps(scores_ + key * kTile); }
  [[nodiscard]] __mmask16 seen(std::int64_t key) const {
    const __m512i index = _mm512_set1_epi32(static_cast<int>(key));
    return _mm512_mask_cmpgt_epi32_mask(_mm512_cmple_epi32_mask(low_, index), high_, index);
  }
  void store_pair(std::int64_t key, __m512 even, __m512 odd) const {
    _mm512_store_si512(scores_ + key * kTile, interleaved(rounded(even, odd)));
  }
  // Zeros for the keys about `keys` (begin even) that their products sum, too.
  void pad_pairs(KeyRange keys) const {
    const auto clear = [this](std::int64_t key, std::int64_t end) {
      for (; key < end; key += 2) _mm512_store_si512(scores_ + key * kTile, _mm512_setzero_si512());
    };
    clear(grain_begin(keys.begin), keys.begin);
    clear((keys.end + 1) / 2 * 2, grain_end(keys.end));
  }

 private:
  float* scores_;
  __m512i low_, high_;
};

template <bool cut>
__m512 maximum(const Column& column, KeyRange keys, __m512 before) {
  __m512 top[2] = {before, before};
  const auto join = [&](__m512& most, std::int64_t key) {
    // A NaN is the first operand, and so never the maximum; its weight will be NaN.
    most = cut ? _mm512_mask_max_ps(most, column.seen(key), column.score(key), most) : _mm512_max_ps(column.score(key), most);
  };
  std::int64_t key = keys.begin;
  for (; key + 2 <= keys.end; key += 2) join(top[0], key), join(top[1], key + 1);
  if (key < keys.end) join(top[0], key);
  return _mm512_max_ps(top[0], top[1]);
}

// The weights 2^(score - origin) of the keys, which join `sum` pair by pair.
template <bool cut>
__m512 weigh(const Column& column, KeyRange keys, __m512 origin, __m512 sum) {
  const auto weight = [&](std::int64_t key) {
    const __m512 w = power<5>(_mm512_sub_ps(column.score(key), origin));
    return cut ? _mm512_maskz_mov_ps(column.seen(key), w) : w;
  };
  std::int64_t key = keys.begin;
  for (; key + 2 <= keys.end; key += 2) {
    const __m512 even = weight(key), odd = weight(key + 1);
    sum = _mm512_add_ps(sum, _mm512_add_ps(even, odd));
    column.store_pair(key, even, odd);
  }
  if (key < keys.end) {
    const __m512 even = weight(key);
    sum = _mm512_add_ps(sum, even);
    column.store_pair(key, even, _mm512_setzero_ps());
  }
  return sum;
}

// Softmax of one column, which sees some of `keys`, and all of `whole` among them with every lane; `scale` takes the factors
// 2^(old maximum - new maximum).
void softmax(const ForwardTile<float>& t, std::int64_t lane, KeyRange keys, KeyRange whole, float* scale) {
  const Column column(t, lane);
  const KeyRange below{keys.begin, whole.begin}, above{whole.end, keys.end};
  const __m512 before = _mm512_load_ps(t.max + lane);
  const __m512 top = maximum<true>(column, above, maximum<false>(column, whole, maximum<true>(column, below, before)));
  // A stand-in in the exponents only: the stored maximum stays -inf, or a later score of -1e5 would lose to 0.
  const __m512 hidden = _mm512_set1_ps(-kInf);
  const __m512 origin = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(top, hidden, _CMP_NEQ_UQ), top);
  __m512 sum = weigh<true>(column, below, origin, _mm512_setzero_ps());
  sum = weigh<false>(column, whole, origin, sum);
  sum = weigh<true>(column, above, origin, sum);
  column.pad_pairs(keys);
  const __m512 factor = exp2(_mm512_sub_ps(before, origin));
  _mm512_store_ps(scale + lane, factor);
  _mm512_store_ps(t.sum + lane, _mm512_fmadd_ps(_mm512_load_ps(t.sum + lane), factor, sum));
  _mm512_store_ps(t.max + lane, top);
}

void apply_softcap(const ForwardTile<float>& t, std::int64_t lane, KeyRange keys) {
  for (std::int64_t key = keys.begin; key < keys.end; ++key) {
    float* score = static_cast<float*>(t.scratch) + key * kTile + lane;
    _mm512_store_ps(score, tanh(_mm512_load_ps(score)) * t.cap);
  }
}

void scores(const ForwardTile<float>& t, KeyRange keys, std::int64_t lane, std::int64_t lane_end) {
  const Dots<Along::pairs> product{grain_end(t.dim) / 2, static_cast<const Word*>(t.k), row_step(t.dim) / 2,
                                   static_cast<const Word*>(t.q), kTile};
  auto* to = static_cast<float*>(t.scratch);
  const __m512 factor = _mm512_set1_ps(t.factor);
  Products::dots(product, keys.begin, keys.end, lane, lane_end, [=](std::int64_t key, std::int64_t n, __m512 sum) {
    _mm512_store_ps(to + key * kTile + n, _mm512_mul_ps(sum, factor));
  });
}

// out = out scale + weights . v over the keys of [begin, end), begin even.
void accumulate(const ForwardTile<float>& t, KeyRange keys, std::int64_t lane, std::int64_t lane_end, const float* scale) {
  const auto join = [out = t.out_t, scale](std::int64_t i, std::int64_t n, __m512 sum) {
    float* to = out + i * kTile + n;
    _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_load_ps(to), _mm512_load_ps(scale + n), sum));
  };
  Products::dots_over_keys(t.v, t.dim_v, keys, static_cast<const Word*>(t.scratch), kPairStride, lane, lane_end, join);
}

// The same, term by term, of what is seen alone: 0 times a hidden NaN would be NaN.
void accumulate_seen(const ForwardTile<float>& t, std::int64_t lane, std::int64_t lane_end, const float* scale) {
  const auto* weights = static_cast<const Word*>(t.scratch);
  for (std::int64_t i = 0; i < t.dim_v; ++i)
    for (std::int64_t n = lane; n < lane_end; ++n) {
      float sum = 0;
      for (std::int64_t key = t.mask->low[n]; key < t.mask->high[n]; ++key)
        sum += number(weights[key / 2 * kPairStride + n], key % 2) * Products::column(t.v, t.dim_v, key, i);
      float& out = t.out_t[i * kTile + n];
      out = out * scale[n] + sum;
    }
}

}  // namespace

std::size_t forward_scratch_bytes() { return std::size_t{kTile} * kTile * sizeof(float); }

void forward(const ForwardTile<float>& t) {
  alignas(64) float scale[kTile];
  if (!t.mask->cut) {
    const KeyRange all_keys{0, t.keys};
    scores(t, all_keys, 0, t.lanes);
    for (std::int64_t lane = 0; lane < t.lanes; lane += kWords) {
      if (t.cap != 0) apply_softcap(t, lane, all_keys);
      softmax(t, lane, all_keys, all_keys, scale);
    }
    return accumulate(t, all_keys, 0, t.lanes, scale);
  }
  const Columns columns(*t.mask, t.lanes, t.keys);
  columns.for_each_key_block([&](KeyRange keys, std::int64_t lane, std::int64_t lane_end) { scores(t, keys, lane, lane_end); });
  for (std::int64_t lane = 0; lane < t.lanes; lane += kWords) {
    const KeyRange keys = columns.keys(lane);
    if (keys.begin >= keys.end) continue;
    if (t.cap != 0) apply_softcap(t, lane, keys);
    softmax(t, lane, keys, columns.whole(lane), scale);
  }
  columns.for_each_run([&](KeyRange keys, std::int64_t lane, std::int64_t lane_end) {
    t.careful ? accumulate_seen(t, lane, lane_end, scale) : accumulate(t, keys, lane, lane_end, scale);
  });
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
