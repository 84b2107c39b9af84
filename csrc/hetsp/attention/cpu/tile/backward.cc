#include "hetsp/attention/cpu/tile/backward.h"

#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// In double, in one order: a row that sees one key has out = v, and so delta = dp to the last bit.
template <class T>
double dot(const T* a, std::int64_t a_step, const T* b, std::int64_t b_step, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i * a_step]) * static_cast<double>(b[i * b_step]);
  return sum;
}

// dout . v of rows that see few keys: dp - delta nearly cancels there, and is all that there is, so each pair gets an exact
// sum. It costs no more than the product of a whole tile, of which such rows would use a narrow band. Scores keep the
// forward's arithmetic: their errors are in lse too, and cancel.
constexpr std::int32_t kFewKeys = 8;
template <class T>
void few_dp(const BackwardTile<T>& t, T* ds) {
  const auto *v = static_cast<const T*>(t.v), *dout = static_cast<const T*>(t.dout);
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t lane = 0; lane < t.lanes; ++lane) {
      const bool shown = lane < t.rows && (!t.mask->cut || visible(*t.mask, key, lane));
      ds[key * kTile + lane] = shown ? static_cast<T>(dot(v + key * pad(t.dim_v), 1, dout + lane, kTile, t.dim_v)) : T(0);
    }
}

// weights holds scores and gradients holds dout . v; they become p and ds.
template <class T>
void softmax_gradient(const BackwardTile<T>& t, T* weights, T* gradients) {
  const Vec<T> zero = {};
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>) {
      Vec<T>&p = at(weights + key * kTile + lane), &ds = at(gradients + key * kTile + lane);
      Vec<T> score = p, slope = all(T(1));
      if (t.cap != 0) {
        const Vec<T> squashed = tanh(score);
        slope = 1 - squashed * squashed;
        score = squashed * t.cap;
      }
      Vec<T> weight = exp2((score - at(t.lse_high + lane)) - at(t.lse_low + lane));
      Vec<T> gradient = weight * (ds - at(t.delta + lane)) * slope;
      if (t.mask->cut) {
        const IntVec<T> shown = seen<T>(*t.mask, key, lane);
        weight = shown ? weight : zero;
        gradient = shown ? gradient : zero;
      }
      p = weight;
      ds = gradient;
    }
}

}  // namespace

template <class T>
void backward(const BackwardTile<T>& t) {
  T *p = static_cast<T*>(t.scratch), *ds = p + kTile * kTile;  // [kTile][kTile] each
  const std::int64_t dim_pad = pad(t.dim), dim_v_pad = pad(t.dim_v);
  const auto *q = static_cast<const T*>(t.q), *k = static_cast<const T*>(t.k), *v = static_cast<const T*>(t.v);
  const auto* dout = static_cast<const T*>(t.dout);
  multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim, k, dim_pad, 1, q, kTile, p, kTile, nullptr});
  if (t.mask->widest <= kFewKeys) {
    few_dp(t, ds);
  } else {
    multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim_v, v, dim_v_pad, 1, dout, kTile, ds, kTile, nullptr});
  }
  softmax_gradient(t, p, ds);
  if (t.dq_t != nullptr) {
    const auto* k_pairs = static_cast<const T*>(t.k_pairs);
    const Product<T> dq{t.dim, t.lanes, t.keys, k_pairs, 1, dim_pad, ds, kTile, t.dq_t, kTile, nullptr};
    t.careful ? multiply_visible_keys(dq, *t.mask) : multiply<Join::add>(dq);
  }
  if (t.dk != nullptr) {
    const auto *q_pairs = static_cast<const T*>(t.q_pairs), *dout_pairs = static_cast<const T*>(t.dout_pairs);
    const Product<T> dk{t.keys, dim_pad, t.rows, ds, kTile, 1, q_pairs, dim_pad, t.dk, dim_pad, nullptr};
    const Product<T> dv{t.keys, dim_v_pad, t.rows, p, kTile, 1, dout_pairs, dim_v_pad, t.dv, dim_v_pad, nullptr};
    t.careful ? multiply_visible_rows(dk, *t.mask) : multiply<Join::add>(dk);
    t.careful ? multiply_visible_rows(dv, *t.mask) : multiply<Join::add>(dv);
  }
}

template void backward(const BackwardTile<float>& tile);
template void backward(const BackwardTile<double>& tile);

}  // namespace hetsp::attention::cpu::HETSP_ISA
