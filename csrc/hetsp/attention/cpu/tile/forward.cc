#include "hetsp/attention/cpu/tile/forward.h"

#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// Keys [begin, end) for vectors [lane, lane + V kWidth): the part of a tile that one step works on.
struct Part {
  std::int64_t begin, end, lane;
};

// scores [key][lane] -> 2^(score - max), the new maxima, and the factors 2^(old max - new max) in `scale`. Scores of keys that
// a lane does not see may be anything.
template <int V, bool cut, class T>
void softmax(const ForwardTile<T>& t, const Part& part, T* scores, T* scale) {
  const Vec<T> hidden = all(-static_cast<T>(kInf));
  Vec<T> before[V], top[V], sum[V] = {};
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) before[v] = top[v] = at(t.max + part.lane + v * kWidth<T>);
  for (std::int64_t key = part.begin; key < part.end; ++key) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      const std::int64_t lane = part.lane + v * kWidth<T>;
      Vec<T>& stored = at(scores + key * kTile + lane);
      Vec<T> s = stored;
      if (t.cap != 0) s = tanh(s) * t.cap;
      if constexpr (cut) s = seen<T>(*t.mask, key, lane) ? s : hidden;
      if (cut || t.cap != 0) stored = s;
      top[v] = s > top[v] ? s : top[v];
    }
  }
  Vec<T> origin[V];  // a stand-in in the exponents only: the stored maximum stays -inf, or a later -1e5 would lose to 0
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) origin[v] = top[v] == hidden ? all(T(0)) : top[v];
  for (std::int64_t key = part.begin; key < part.end; ++key) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      Vec<T>& s = at(scores + key * kTile + part.lane + v * kWidth<T>);
      s = exp2(s - origin[v]);
      sum[v] += s;
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v) {
    const std::int64_t lane = part.lane + v * kWidth<T>;
    const Vec<T> factor = exp2(before[v] - origin[v]);
    at(scale + lane) = factor;
    at(t.sum + lane) = at(t.sum + lane) * factor + sum[v];
    at(t.max + lane) = top[v];
  }
}

template <bool cut, class T>
void softmax_of_all(const ForwardTile<T>& t, T* scores, T* scale) {
  std::int64_t lane = 0;
  for (; lane + kMostVectors * kWidth<T> <= t.lanes; lane += kMostVectors * kWidth<T>)
    softmax<kMostVectors, cut>(t, {0, t.keys, lane}, scores, scale);
  for (; lane < t.lanes; lane += kWidth<T>) softmax<1, cut>(t, {0, t.keys, lane}, scores, scale);
}

// Scores and weighted sums of keys [begin, end) for `n` lanes from `lane` on.
template <class T>
Product<T> scores_of(const ForwardTile<T>& t, const Part& part, std::int64_t n, T* scores) {
  const auto *q = static_cast<const T*>(t.q), *k = static_cast<const T*>(t.k);
  return {part.end - part.begin,
          n,
          t.dim,
          k + part.begin * pad(t.dim),
          pad(t.dim),
          1,
          q + part.lane,
          kTile,
          scores + part.begin * kTile + part.lane,
          kTile,
          nullptr};
}
template <class T>
Product<T> weighted_of(const ForwardTile<T>& t, const Part& part, std::int64_t n, const T* scores, const T* scale) {
  return {t.dim_v,
          n,
          part.end - part.begin,
          static_cast<const T*>(t.v) + part.begin * pad(t.dim_v),
          1,
          pad(t.dim_v),
          scores + part.begin * kTile + part.lane,
          kTile,
          t.out_t + part.lane,
          kTile,
          scale + part.lane};
}

}  // namespace

// Vectors of lanes of a cut tile go one by one, each over the keys that some lane of it sees: terms left out are exactly 0, so
// that no lane can tell. A tile cut by the causal diagonal costs 5/8 of a whole one.
template <class T>
void forward(const ForwardTile<T>& t) {
  alignas(64) T scale[kTile];
  auto* scores = static_cast<T*>(t.scratch);  // [kTile][kTile]
  const Part whole{0, t.keys, 0};
  if (!t.mask->cut || t.careful) {
    multiply_in_runs(scores_of(t, whole, t.lanes, scores));
    t.mask->cut ? softmax_of_all<true>(t, scores, scale) : softmax_of_all<false>(t, scores, scale);
    const Product<T> weighted = weighted_of(t, whole, t.lanes, scores, scale);
    if (t.careful) return multiply_visible_keys(weighted, *t.mask);
    return multiply<Join::rescale_and_add>(weighted);
  }
  for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>) {
    const Part part{t.mask->low[lane], t.mask->high[lane + kWidth<T> - 1], lane};
    if (part.begin >= part.end) continue;
    multiply_in_runs(scores_of(t, part, kWidth<T>, scores));
    softmax<1, true>(t, part, scores, scale);
    multiply<Join::rescale_and_add>(weighted_of(t, part, kWidth<T>, scores, scale));
  }
}

template void forward(const ForwardTile<float>& tile);
template void forward(const ForwardTile<double>& tile);

}  // namespace hetsp::attention::cpu::HETSP_ISA
