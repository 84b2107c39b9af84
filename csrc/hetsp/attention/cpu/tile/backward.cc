#include "hetsp/attention/cpu/tile/backward.h"

#include "hetsp/attention/cpu/tile/exact_dot.h"
#include "hetsp/attention/cpu/tile/exp2.h"
#include "hetsp/attention/cpu/tile/product.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

// dout . v of rows that see few keys: dp - delta nearly cancels there, and is all that there is, so each pair gets an exact
// sum. It costs no more than the product of a whole tile, of which such rows would use a narrow band. Scores keep the
// forward's arithmetic: their errors are in lse too, and cancel.
constexpr std::int32_t kFewKeys = 8;
template <class T>
void few_dp(const BackwardTile<T>& t, T* ds) {
  const auto *v = static_cast<const T*>(t.v), *dout = static_cast<const T*>(t.dout);
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t lane = 0; lane < t.lanes; lane += 8) {
      const Eight sum = lanes_dot(v + key * pad(t.dim_v), dout + lane, t.dim_v);
      for (int i = 0; i < 8; ++i) ds[key * kTile + lane + i] = static_cast<T>(sum[i]);
    }
}

// Lanes [begin, end), or keys.
struct Span {
  std::int64_t begin, end;
};

// What a tile computes: all of it where the mask cuts nothing, else for each block of kLanes keys the lanes that see some of
// them, and for each column of kLanes lanes the keys that some of them see. Both are runs, since low and high do not decrease
// along the lanes. The rest of p and ds is 0 and takes part in no sum: a causal diagonal tile of four blocks costs 5/8 of a
// whole one.
class Shown {
 public:
  template <class T>
  explicit Shown(const BackwardTile<T>& t) : mask_(*t.mask), keys_(t.keys), lanes_(t.lanes) {}

  [[nodiscard]] bool all() const { return !mask_.cut; }

  // body(keys, lanes) for each block that somebody sees.
  template <class Body>
  void for_each_block(const Body& body) const {
    if (all()) return body(Span{0, keys_}, Span{0, lanes_});
    std::int64_t first = 0,
                 last = 0;  // lanes before `first` see nothing from this block on; those from `last` on nothing before
    for (std::int64_t key = 0; key < keys_; key += kLanes) {
      const std::int64_t end = least(key + kLanes, keys_);
      while (first < lanes_ && mask_.high[first] <= key) ++first;
      while (last < lanes_ && mask_.low[last] < end) ++last;
      if (first < last) body(Span{key, end}, Span{first, last});
    }
  }

  // body(keys, lanes) for each column that sees something.
  template <class Body>
  void for_each_column(const Body& body) const {
    if (all()) return body(Span{0, keys_}, Span{0, lanes_});
    for (std::int64_t lane = 0; lane < lanes_; lane += kLanes) {
      const Span keys = keys_of(lane);
      if (keys.begin < keys.end) body(keys, Span{lane, lane + kLanes});
    }
  }

  // Keys of the column at `lane`, in whole blocks.
  [[nodiscard]] Span keys_of(std::int64_t lane) const {
    if (all()) return {0, keys_};
    const std::int64_t low = mask_.low[lane], high = mask_.high[lane + kLanes - 1];
    return {low / kLanes * kLanes, least((high + kLanes - 1) / kLanes * kLanes, keys_)};
  }

 private:
  const TileMask& mask_;
  const std::int64_t keys_, lanes_;
};

// `weights` holds scores and `gradients` holds dout . v; they become p and ds, for the column at `lane`.
template <bool cut, bool capped, class T>
void column_gradient(const BackwardTile<T>& t, std::int64_t lane, Span keys, T* weights, T* gradients) {
  const Vec<T> zero = {}, high = at(t.lse_high + lane), low = at(t.lse_low + lane), delta = at(t.delta + lane),
               cap = all(t.cap);
  for (std::int64_t key = keys.begin; key < keys.end; ++key) {
    Vec<T>&p = at(weights + key * kTile + lane), &ds = at(gradients + key * kTile + lane);
    Vec<T> score = p, gradient = ds - delta;
    if constexpr (capped) {
      const Vec<T> squashed = tanh(score);
      gradient *= 1 - squashed * squashed;
      score = squashed * cap;
    }
    Vec<T> weight = exp2((score - high) - low);
    gradient *= weight;
    if constexpr (cut) {
      const IntVec<T> shown = seen<T>(*t.mask, key, lane);
      weight = shown ? weight : zero;
      gradient = shown ? gradient : zero;
    }
    p = weight;
    ds = gradient;
  }
}

template <class T>
void softmax_gradient(const BackwardTile<T>& t, const Shown& shown, T* weights, T* gradients) {
  const bool cut = t.mask->cut, capped = t.cap != 0;
  const auto column = cut ? (capped ? column_gradient<true, true, T> : column_gradient<true, false, T>)
                          : (capped ? column_gradient<false, true, T> : column_gradient<false, false, T>);
  for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>)
    column(t, lane, shown.keys_of(lane / kLanes * kLanes), weights, gradients);
}

// C[key][lane] = A[key] . B[lane] of the blocks that are seen.
template <class T>
void block_products(const Shown& shown, const T* a, const T* b, std::int64_t dim, T* c) {
  shown.for_each_block([&](Span keys, Span lanes) {
    const std::int64_t lane = lanes.begin / kLanes * kLanes, count = pad(lanes.end) - lane;
    multiply_in_runs(Product<T>{keys.end - keys.begin, count, dim, a + keys.begin * pad(dim), pad(dim), 1, b + lane, kTile,
                                c + keys.begin * kTile + lane, kTile, nullptr});
  });
}

// C[key] += sum over lanes of A[key][lane] B[lane].
template <class T>
void add_rows(const BackwardTile<T>& t, const Shown& shown, const T* a, const T* b, std::int64_t dim_pad, T* c) {
  shown.for_each_block([&](Span keys, Span lanes) {
    const std::int64_t lane = lanes.begin, count = least(lanes.end, t.rows) - lane;
    multiply<Join::add>(Product<T>{keys.end - keys.begin, dim_pad, count, a + keys.begin * kTile + lane, kTile, 1,
                                   b + lane * dim_pad, dim_pad, c + keys.begin * dim_pad, dim_pad, nullptr});
  });
}

}  // namespace

template <class T>
void backward(const BackwardTile<T>& t) {
  T *p = static_cast<T*>(t.scratch), *ds = p + kTile * kTile;  // [kTile][kTile] each
  const std::int64_t dim_pad = pad(t.dim), dim_v_pad = pad(t.dim_v);
  const auto *q_pairs = static_cast<const T*>(t.q_pairs), *dout_pairs = static_cast<const T*>(t.dout_pairs);
  const auto* k_columns = static_cast<const T*>(t.k_columns);
  const Shown shown(t);
  block_products(shown, static_cast<const T*>(t.k), static_cast<const T*>(t.q), t.dim, p);
  if (t.mask->widest <= kFewKeys) {
    few_dp(t, ds);
  } else {
    block_products(shown, static_cast<const T*>(t.v), static_cast<const T*>(t.dout), t.dim_v, ds);
  }
  softmax_gradient(t, shown, p, ds);
  if (t.careful) {
    multiply_visible_keys(Product<T>{t.dim, t.lanes, t.keys, k_columns, 1, dim_pad, ds, kTile, t.dq_t, kTile, nullptr},
                          *t.mask);
    multiply_visible_rows(Product<T>{t.keys, dim_pad, t.rows, ds, kTile, 1, q_pairs, dim_pad, t.dk, dim_pad, nullptr}, *t.mask);
    multiply_visible_rows(Product<T>{t.keys, dim_v_pad, t.rows, p, kTile, 1, dout_pairs, dim_v_pad, t.dv, dim_v_pad, nullptr},
                          *t.mask);
    return;
  }
  add_rows(t, shown, p, dout_pairs, dim_v_pad, t.dv);
  add_rows(t, shown, ds, q_pairs, dim_pad, t.dk);
  shown.for_each_column([&](Span keys, Span lanes) {
    multiply<Join::add>(Product<T>{t.dim, lanes.end - lanes.begin, keys.end - keys.begin, k_columns + keys.begin * dim_pad, 1,
                                   dim_pad, ds + keys.begin * kTile + lanes.begin, kTile, t.dq_t + lanes.begin, kTile,
                                   nullptr});
  });
}

template void backward(const BackwardTile<float>& tile);
template void backward(const BackwardTile<double>& tile);

}  // namespace hetsp::attention::cpu::HETSP_ISA
