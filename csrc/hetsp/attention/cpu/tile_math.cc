// Compiled once per instruction set, with its options, its namespace HETSP_ISA and its HETSP_VECTOR_BYTES (CMakeLists.txt).
//
// Nothing outside namespace HETSP_ISA may be defined here, not even by an inline function of a header: the linker would
// keep one copy for all, perhaps the one that only a newer CPU can run. Hence no std:: templates and builtins only.
#include "hetsp/attention/cpu/tile_math.h"

#include <cstdint>

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

template <class T>
struct Simd;
template <>
struct Simd<float> {
  using Int = std::int32_t;
  typedef float Vec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
  typedef std::int32_t IntVec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
};
template <>
struct Simd<double> {
  using Int = std::int64_t;
  typedef double Vec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
  typedef std::int64_t IntVec __attribute__((vector_size(HETSP_VECTOR_BYTES), may_alias));
};

template <class T>
using Vec = typename Simd<T>::Vec;
template <class T>
using IntVec = typename Simd<T>::IntVec;
template <class T>
constexpr int kWidth = HETSP_VECTOR_BYTES / sizeof(T);

template <class T>
Vec<T>& at(T* p) {
  return *reinterpret_cast<Vec<T>*>(p);
}
template <class T>
const Vec<T>& at(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <class T>
Vec<T> all(T x) {
  return x - Vec<T>{};
}

constexpr float kInf = __builtin_inff();

// 2^x = 2^n 2^f, n = round(x), |f| <= 1/2, by a relative minimax polynomial of degree 6 (2e-9, so float rounding alone
// remains). Below the normal range: 0. Above: inf. NaN stays.
inline Vec<float> exp2(Vec<float> x) {
  const Vec<float> magic = all(0x1.8p23F);
  const Vec<float> top = x > 128.0F ? all(128.0F) : x;
  const Vec<float> n = (top + magic) - magic;
  const Vec<float> f = top - n;
  Vec<float> p = all(0x1.41fbbcp-13F);
  p = p * f + 0x1.5f3e54p-10F;
  p = p * f + 0x1.3b2d4cp-7F;
  p = p * f + 0x1.c6aee8p-5F;
  p = p * f + 0x1.ebfbdcp-3F;
  p = p * f + 0x1.62e430p-1F;
  p = p * f + 1.0F;
  const IntVec<float> power = (__builtin_convertvector(n, IntVec<float>) + 127) << 23;
  const Vec<float> result = p * reinterpret_cast<Vec<float>>(power);
  return x < -126.0F ? all(0.0F) : result;
}
inline Vec<double> exp2(Vec<double> x) {  // the oracle's type: full precision before speed
  for (int lane = 0; lane < kWidth<double>; ++lane) x[lane] = __builtin_exp2(x[lane]);
  return x;
}

// Odd minimax polynomial near 0, where 1 - 2 / (e^2x + 1) would cancel; (1 - e^-2|x|) / (1 + e^-2|x|) elsewhere.
inline Vec<float> tanh(Vec<float> x) {
  const Vec<float> z = x * x, magnitude = x < 0.0F ? -x : x;
  Vec<float> p = all(0.002226970568017932F);
  p = p * z - 0.008262741246941947F;
  p = p * z + 0.021732719857320785F;
  p = p * z - 0.05395216673172149F;
  p = p * z + 0.13333245369532562F;
  p = p * z - 0.3333333172074787F;
  const Vec<float> near = x + x * z * p;
  const Vec<float> e = exp2(magnitude * -2.8853900817779268F);
  const Vec<float> away = (1.0F - e) / (1.0F + e);
  return magnitude < 0.55F ? near : (x < 0.0F ? -away : away);
}
inline Vec<double> tanh(Vec<double> x) {
  for (int lane = 0; lane < kWidth<double>; ++lane) x[lane] = __builtin_tanh(x[lane]);
  return x;
}

// How a product joins what C holds. Each sum starts at 0 and joins once: long sums become sums of 64-term sums.
enum class Join { set, add, rescale_and_add };

template <class T>
struct Product {
  std::int64_t m, n, k;       // n: multiple of kLanes
  const T* a;                 // [m][k] by strides
  std::int64_t a_m, a_k;
  const T* b;                 // [k][n]
  std::int64_t b_k;
  T* c;                       // [m][n]
  std::int64_t c_m;
  const T* scale;             // [n] for rescale_and_add: C = C scale + A B
};

// R x V vectors of C in registers.
template <int R, int V, Join join, class T>
void block(const Product<T>& p, std::int64_t m0, std::int64_t n0) {
  Vec<T> sum[R][V] = {};
  const T* a = p.a + m0 * p.a_m;
  const T* b = p.b + n0;
  for (std::int64_t k = 0; k < p.k; ++k, a += p.a_k, b += p.b_k) {
    Vec<T> row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = at(b + v * kWidth<T>);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const T x = a[r * p.a_m];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += x * row[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      Vec<T>& c = at(p.c + (m0 + r) * p.c_m + n0 + v * kWidth<T>);
      if constexpr (join == Join::set) c = sum[r][v];
      if constexpr (join == Join::add) c += sum[r][v];
      if constexpr (join == Join::rescale_and_add) c = c * at(p.scale + n0 + v * kWidth<T>) + sum[r][v];
    }
}

template <int V, Join join, class T>
void column(const Product<T>& p, std::int64_t n0) {
  constexpr int kRows = 6;
  std::int64_t m = 0;
  for (; m + kRows <= p.m; m += kRows) block<kRows, V, join>(p, m, n0);
  switch (p.m - m) {
    case 5:
      return block<5, V, join>(p, m, n0);
    case 4:
      return block<4, V, join>(p, m, n0);
    case 3:
      return block<3, V, join>(p, m, n0);
    case 2:
      return block<2, V, join>(p, m, n0);
    case 1:
      return block<1, V, join>(p, m, n0);
    default:
      return;
  }
}

template <Join join, class T>
void multiply(const Product<T>& p) {
  constexpr int kVectors = HETSP_VECTOR_BYTES == 64 ? 4 : 2;  // 6 x 4 of 32 registers, 6 x 2 of 16
  constexpr std::int64_t kStep = kVectors * kWidth<T>;
  std::int64_t n = 0;
  for (; n + kStep <= p.n; n += kStep) column<kVectors, join>(p, n);
  for (; n < p.n; n += kWidth<T>) column<1, join>(p, n);
}

bool visible(const TileMask& mask, std::int64_t key, std::int64_t lane) {
  return mask.low[lane] <= key && key < mask.high[lane];
}

// The two masked products that must not pass on a NaN of a hidden pair, where 0 * NaN would.
// C[m][lane] += sum over visible keys of A[key][m] B[key][lane].
template <class T>
void multiply_visible_keys(const Product<T>& p, const TileMask& mask) {
  for (std::int64_t m = 0; m < p.m; ++m)
    for (std::int64_t lane = 0; lane < p.n; ++lane) {
      T sum = 0;
      for (std::int64_t key = 0; key < p.k; ++key)
        if (visible(mask, key, lane)) sum += p.a[m * p.a_m + key * p.a_k] * p.b[key * p.b_k + lane];
      T& c = p.c[m * p.c_m + lane];
      c = (p.scale != nullptr ? c * p.scale[lane] : c) + sum;
    }
}
// C[key][n] += sum over lanes that see the key of A[key][lane] B[lane][n].
template <class T>
void multiply_visible_rows(const Product<T>& p, const TileMask& mask) {
  for (std::int64_t key = 0; key < p.m; ++key)
    for (std::int64_t n = 0; n < p.n; ++n) {
      T sum = 0;
      for (std::int64_t lane = 0; lane < p.k; ++lane)
        if (visible(mask, key, lane)) sum += p.a[key * p.a_m + lane * p.a_k] * p.b[lane * p.b_k + n];
      p.c[key * p.c_m + n] += sum;
    }
}

template <class T>
IntVec<T> seen(const TileMask& mask, std::int64_t key, std::int64_t lane) {
  typedef std::int32_t Narrow __attribute__((vector_size(kWidth<T> * sizeof(std::int32_t)), may_alias));
  const auto low = __builtin_convertvector(*reinterpret_cast<const Narrow*>(mask.low + lane), IntVec<T>);
  const auto high = __builtin_convertvector(*reinterpret_cast<const Narrow*>(mask.high + lane), IntVec<T>);
  const auto index = static_cast<typename Simd<T>::Int>(key);
  return (low <= index) & (high > index);
}

// scores [key][lane] -> 2^(score - max), the new maxima, and the factors 2^(old max - new max) in `scale`.
template <class T>
void softmax_step(const ForwardTile<T>& t, T* scale) {
  const Vec<T> hidden = all(-static_cast<T>(kInf));
  for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>) {
    const Vec<T> before = at(t.max + lane);
    Vec<T> top = before;
    for (std::int64_t key = 0; key < t.keys; ++key) {
      Vec<T>& s = at(t.scores + key * kTile + lane);
      if (t.cap != 0) s = tanh(s) * t.cap;
      if (t.mask->cut) s = seen<T>(*t.mask, key, lane) ? s : hidden;
      top = s > top ? s : top;
    }
    // A stand-in in the exponents only: the stored maximum stays -inf, or a later score of -1e5 would lose to 0.
    const Vec<T> origin = top == hidden ? all(T(0)) : top;
    Vec<T> sum = {};
    for (std::int64_t key = 0; key < t.keys; ++key) {
      Vec<T>& s = at(t.scores + key * kTile + lane);
      s = exp2(s - origin);
      sum += s;
    }
    const Vec<T> factor = exp2(before - origin);
    at(scale + lane) = factor;
    at(t.sum + lane) = at(t.sum + lane) * factor + sum;
    at(t.max + lane) = top;
  }
}

// C = A B, the sum over k cut into runs of kRun terms: sqrt(kRun) + sqrt(k / kRun) roundings instead of sqrt(k). Worth it
// for the short sums of scores and of dout . v, whose errors are not averaged over keys.
constexpr std::int64_t kRun = 16;
template <class T>
void multiply_in_runs(Product<T> p) {
  const std::int64_t total = p.k;
  p.k = total < kRun ? total : kRun;
  multiply<Join::set>(p);
  for (std::int64_t done = kRun; done < total; done += kRun) {
    p.a += kRun * p.a_k, p.b += kRun * p.b_k;
    p.k = total - done < kRun ? total - done : kRun;
    multiply<Join::add>(p);
  }
}

template <class T>
void forward(const ForwardTile<T>& t) {
  alignas(64) T scale[kTile];
  multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim, t.k, t.dim, 1, t.q_t, kTile, t.scores, kTile, nullptr});
  softmax_step(t, scale);
  const Product<T> weighted{t.dim_v, t.lanes, t.keys, t.v, 1, t.dim_v, t.scores, kTile, t.out_t, kTile, scale};
  if (t.careful) return multiply_visible_keys(weighted, *t.mask);
  multiply<Join::rescale_and_add>(weighted);
}

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
void few_dp(const BackwardTile<T>& t) {
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t lane = 0; lane < t.lanes; ++lane) {
      const bool shown = lane < t.rows && (!t.mask->cut || visible(*t.mask, key, lane));
      t.ds[key * kTile + lane] = shown ? static_cast<T>(dot(t.v + key * t.dim_v, 1, t.dout_t + lane, kTile, t.dim_v)) : T(0);
    }
}

// p holds scores and ds holds dout . v; both become what their names say.
template <class T>
void softmax_gradient(const BackwardTile<T>& t) {
  const Vec<T> zero = {};
  for (std::int64_t key = 0; key < t.keys; ++key)
    for (std::int64_t lane = 0; lane < t.lanes; lane += kWidth<T>) {
      Vec<T>&p = at(t.p + key * kTile + lane), &ds = at(t.ds + key * kTile + lane);
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

template <class T>
void backward(const BackwardTile<T>& t) {
  multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim, t.k, t.dim, 1, t.q_t, kTile, t.p, kTile, nullptr});
  if (t.mask->widest <= kFewKeys) {
    few_dp(t);
  } else {
    multiply_in_runs(Product<T>{t.keys, t.lanes, t.dim_v, t.v, t.dim_v, 1, t.dout_t, kTile, t.ds, kTile, nullptr});
  }
  softmax_gradient(t);
  if (t.dq_t != nullptr) {
    const Product<T> dq{t.dim, t.lanes, t.keys, t.k, 1, t.dim, t.ds, kTile, t.dq_t, kTile, nullptr};
    t.careful ? multiply_visible_keys(dq, *t.mask) : multiply<Join::add>(dq);
  }
  if (t.dk != nullptr) {
    const Product<T> dk{t.keys, t.dim_pad, t.rows, t.ds, kTile, 1, t.q, t.dim_pad, t.dk, t.dim_pad, nullptr};
    const Product<T> dv{t.keys, t.dim_v_pad, t.rows, t.p, kTile, 1, t.dout, t.dim_v_pad, t.dv, t.dim_v_pad, nullptr};
    t.careful ? multiply_visible_rows(dk, *t.mask) : multiply<Join::add>(dk);
    t.careful ? multiply_visible_rows(dv, *t.mask) : multiply<Join::add>(dv);
  }
}

template <class T>
void delta(std::int64_t rows, std::int64_t dim_v, const T* out, const T* dout, T* result) {
  for (std::int64_t row = 0; row < rows; ++row)
    result[row] = static_cast<T>(dot(out + row * dim_v, 1, dout + row * dim_v, 1, dim_v));
}

}  // namespace

extern const TileMath<float> float_math;
extern const TileMath<double> double_math;
const TileMath<float> float_math{forward<float>, backward<float>, delta<float>};
const TileMath<double> double_math{forward<double>, backward<double>, delta<double>};

}  // namespace hetsp::attention::cpu::HETSP_ISA
