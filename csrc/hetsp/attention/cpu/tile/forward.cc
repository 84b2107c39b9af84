#include "hetsp/attention/cpu/tile/forward.h"

#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// scores [key][lane] -> 2^(score - max), the new maxima, and the factors 2^(old max - new max) in `scale`.
template <class T>
void softmax_step(const ForwardTile<T>& t, T* scores, T* scale) {
  const Vec<T> hidden = all(-static_cast<T>(kInf));
  for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>) {
    const Vec<T> before = at(t.max + lane);
    Vec<T> top = before;
    for (std::int64_t key = 0; key < t.keys; ++key) {
      Vec<T>& s = at(scores + key * kTile + lane);
      if (t.cap != 0) s = tanh(s) * t.cap;
      if (t.mask->cut) s = seen<T>(*t.mask, key, lane) ? s : hidden;
      top = s > top ? s : top;
    }
    // A stand-in in the exponents only: the stored maximum stays -inf, or a later score of -1e5 would lose to 0.
    const Vec<T> origin = top == hidden ? all(T(0)) : top;
    Vec<T> sum = {};
    for (std::int64_t key = 0; key < t.keys; ++key) {
      Vec<T>& s = at(scores + key * kTile + lane);
      s = exp2(s - origin);
      sum += s;
    }
    const Vec<T> factor = exp2(before - origin);
    at(scale + lane) = factor;
    at(t.sum + lane) = at(t.sum + lane) * factor + sum;
    at(t.max + lane) = top;
  }
}

}  // namespace

template <class T>
void forward(const ForwardTile<T>& t) {
  alignas(64) T scale[kTile];
  auto* scores = static_cast<T*>(t.scratch);  // [kTile][kTile]
  const auto *q = static_cast<const T*>(t.q), *k = static_cast<const T*>(t.k), *v = static_cast<const T*>(t.v);
  multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim, k, pad(t.dim), 1, q, kTile, scores, kTile, nullptr});
  softmax_step(t, scores, scale);
  const Product<T> weighted{t.dim_v, t.lanes, t.keys, v, 1, pad(t.dim_v), scores, kTile, t.out_t, kTile, scale};
  if (t.careful) return multiply_visible_keys(weighted, *t.mask);
  multiply<Join::rescale_and_add>(weighted);
}

template void forward(const ForwardTile<float>& tile);
template void forward(const ForwardTile<double>& tile);

}  // namespace hetsp::attention::cpu::HETSP_ISA
