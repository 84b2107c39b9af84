// Problems for the kernels of Hopper's backward, on fibers (support/hopper_on_cpu.h, to be included before), and the definition
// in float64 that their results are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "attention/attention_case.h"
#include "attention/attention_truth.h"
#include "hetsp/attention/cuda/hopper/tma.cuh"
#include "support/check.h"

namespace hopper_backward_case {

using namespace attention_case;
namespace hopper = hetsp::attention::cuda::hopper;

// A gradient, the sum of the sizes of its terms, and how much of it the float32 part of the arithmetic may blur.
struct Term {
  double value = 0, mass = 0, blur = 0;
};

struct Truth {
  std::vector<double> lse, delta;  // [heads][total_q]
  std::vector<Term> dq, dk, dv;
};

// A tensor that the copy engine takes: strides are multiples of 16 bytes.
inline Array tensor(Random& random, DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim) {
  switch (random.between(0, 2)) {
    case 0:
      return {dtype, tokens, heads, dim, dim, tokens * dim};
    case 1:
      return {dtype, tokens, heads, dim, 3 * heads * dim + 8, dim + 8};
    default:
      return {dtype, tokens, heads, dim, heads * dim, dim};
  }
}

inline void fill_case(Random& random, Case& c) {
  const Shape& s = c.shape;
  c.score.softmax_scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
  c.q = tensor(random, s.dtype, s.total_q, s.heads, s.head_dim);
  c.k = tensor(random, s.dtype, s.total_k, s.heads_kv, s.head_dim);
  c.v = tensor(random, s.dtype, s.total_k, s.heads_kv, s.head_dim_v);
  c.dout = tensor(random, s.dtype, s.total_q, s.heads, s.head_dim_v);
  fill(random, c.q, s.total_q, s.heads, s.head_dim, random.chance(15) ? 4 : 1);  // 4: few keys take nearly all the weight
  fill(random, c.k, s.total_k, s.heads_kv, s.head_dim, 1);
  fill(random, c.v, s.total_k, s.heads_kv, s.head_dim_v, 1);
  fill(random, c.dout, s.total_q, s.heads, s.head_dim_v, 1);
  poison_unseen(c);
}

inline Truth truth(const Case& c) {
  const Shape& s = c.shape;
  const auto place = [](std::int64_t row, std::int64_t heads, std::int64_t head, std::int64_t dim, std::int64_t i) {
    return static_cast<std::size_t>((row * heads + head) * dim + i);
  };
  const auto terms = [](std::int64_t count) { return std::vector<Term>(static_cast<std::size_t>(count)); };
  Truth t{std::vector<double>(static_cast<std::size_t>(s.heads * s.total_q), -kInfinity),
          std::vector<double>(static_cast<std::size_t>(s.heads * s.total_q)), terms(s.total_q * s.heads * s.head_dim),
          terms(s.total_k * s.heads_kv * s.head_dim), terms(s.total_k * s.heads_kv * s.head_dim_v)};
  for (std::int64_t row = 0; row < s.total_q; ++row)
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t head_kv = head / (s.heads / s.heads_kv);
      const auto at = static_cast<std::size_t>(head * s.total_q + row);
      struct Pair {
        std::int64_t key;
        double score, mass, dp, dp_mass;
      };
      std::vector<Pair> pairs;
      double top = -kInfinity;
      for (const Segment& segment : c.segments)
        for (std::int64_t key = std::max<std::int64_t>(segment.k_begin, 0); key < std::min(segment.k_end, s.total_k); ++key) {
          if (!visible(segment, row, key)) continue;
          Pair pair{key, 0, 0, 0, 0};
          for (std::int64_t i = 0; i < s.head_dim; ++i) {
            const double x = c.score.softmax_scale * c.q.at(row, head, i) * c.k.at(key, head_kv, i);
            pair.score += x, pair.mass += std::abs(x);
          }
          for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
            const double x = c.dout.at(row, head, i) * c.v.at(key, head_kv, i);
            pair.dp += x, pair.dp_mass += std::abs(x);
          }
          if (c.score.softcap > 0) pair.score = c.score.softcap * std::tanh(pair.score / c.score.softcap);
          top = std::max(top, pair.score);
          pairs.push_back(pair);
        }
      if (pairs.empty()) continue;
      double sum = 0;
      for (const Pair& pair : pairs) sum += std::exp(pair.score - top);
      t.lse[at] = top + std::log(sum);
      double delta_mass = 0;
      for (const Pair& pair : pairs) {
        const double p = std::exp(pair.score - t.lse[at]);
        t.delta[at] += p * pair.dp, delta_mass += p * pair.dp_mass;
      }
      if (c.has_dlse) t.delta[at] -= c.dlse.at(head * s.total_q + row);
      // The kernel is given lse and delta in float32.
      const auto lse = static_cast<float>(t.lse[at]), delta = static_cast<float>(t.delta[at]);
      const auto add = [](Term& term, double value, double mass, double blur) {
        term.value += value, term.mass += mass, term.blur += blur;
      };
      for (const Pair& pair : pairs) {
        const double p = std::exp(pair.score - static_cast<double>(lse));
        const double slope = c.score.softcap > 0 ? 1 - std::pow(pair.score / c.score.softcap, 2) : 1;
        const double ds = p * (pair.dp - static_cast<double>(delta)) * slope;
        const double doubt = 4 + pair.mass + std::abs(t.lse[at]);  // relative, of p, in units of float32
        const double ds_mass = p * (pair.dp_mass + std::abs(t.delta[at]) + delta_mass);
        for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
          const double x = c.dout.at(row, head, i);
          add(t.dv[place(pair.key, s.heads_kv, head_kv, s.head_dim_v, i)], p * x, p * std::abs(x), p * std::abs(x) * doubt);
        }
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          const double scale = c.score.softmax_scale, q = c.q.at(row, head, i), k = c.k.at(pair.key, head_kv, i);
          add(t.dk[place(pair.key, s.heads_kv, head_kv, s.head_dim, i)], scale * ds * q, scale * std::abs(ds * q),
              scale * ds_mass * std::abs(q) * doubt);
          add(t.dq[place(row, s.heads, head, s.head_dim, i)], scale * ds * k, scale * std::abs(ds * k),
              scale * ds_mass * std::abs(k) * doubt);
        }
      }
    }
  return t;
}

struct Results {
  Array dq, dk, dv;
};

// Of boxes of 128 bytes, one head and `rows` tokens.
inline hopper::TensorMap map_of(const Array& array, std::int64_t tokens, std::int64_t heads, std::int64_t dim, int rows = 64) {
  const ConstView view = array.view();
  const std::int64_t size = bytes(array.dtype());
  return cuda_on_cpu::tensor_map(array.data(), static_cast<int>(size), array.dtype() == DType::float32, {dim, heads, tokens},
                                 {view.head_stride * size, view.token_stride * size}, {static_cast<int>(128 / size), 1, rows});
}

// What the kernels are given, and where they write: rows of the results lie apart.
struct Call {
  Results results;
  std::vector<float> lse, delta;
  BackwardParams params{};

  Call(const Case& c, const Truth& t, unsigned seed) : lse(t.lse.begin(), t.lse.end()), delta(t.delta.begin(), t.delta.end()) {
    const Shape& s = c.shape;
    const DType type = c.grad_dtype();
    results = {Array(type, s.total_q, s.heads, s.head_dim, s.heads * (s.head_dim + 1) + 2, s.head_dim + 1),
               Array(type, s.total_k, s.heads_kv, s.head_dim, s.heads_kv * s.head_dim + seed % 3, s.head_dim),
               Array(type, s.total_k, s.heads_kv, s.head_dim_v, s.head_dim_v, s.total_k * s.head_dim_v)};
    params.shape = s, params.score = c.score;
    params.segments = c.segments.data(), params.segment_count = static_cast<std::int64_t>(c.segments.size());
    params.q = c.q.view(), params.k = c.k.view(), params.v = c.v.view(), params.dout = c.dout.view();
    params.lse = lse.data(), params.delta = delta.data();
    params.dq = results.dq.mutable_view(), params.dk = results.dk.mutable_view(), params.dv = results.dv.mutable_view();
    params.grads_are_acc = c.grads_are_acc;
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
};

inline double worst_seen = 0;

inline void check_close(const char* what, const Array& actual, const std::vector<Term>& expected, DType element) {
  const std::vector<double> values = actual.values();
  CHECK_EQ(values.size(), expected.size());
  double worst = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Term& term = expected[i];
    // P and dS are rounded once each, D and the sums are float32, the result is rounded once. exp2 is good to two units.
    const double least = element == DType::float16 ? 0x1p-24 : 0x1p-120;
    const double bound = roundoff(element) * (term.mass + std::abs(term.value)) + 8 * roundoff(DType::float32) * term.blur +
                         least * static_cast<double>(values.size());
    const double error = std::abs(values[i] - term.value);
    if (!(error <= bound))
      worst = std::max(worst, std::isnan(error) ? kInfinity : error / bound);
    else
      worst = std::max(worst, error / bound);
  }
  worst_seen = std::max(worst_seen, worst);
  if (worst > 1) check::fail(__FILE__, __LINE__, std::string(what) + " is off by " + std::to_string(worst) + " of its bound");
  CHECK_EQ(actual.strays(), 0);
}

inline Case random_hopper_case(unsigned seed, DType dtype, Dims dims, std::int64_t most_tokens) {
  Random random(seed);
  Case c;
  c.shape.dtype = dtype, c.shape.head_dim = dims.head_dim, c.shape.head_dim_v = dims.head_dim_v;
  c.shape.heads_kv = random.one_of<std::int64_t>({1, 1, 2}),
  c.shape.heads = c.shape.heads_kv * random.one_of<std::int64_t>({1, 1, 3});
  c.score.softcap = random.chance(25) ? 2.0 : 0.0;
  do {
    c.segments.clear();
    random_segments(random, c, most_tokens);
  } while (c.shape.total_q == 0 || c.shape.total_k == 0);  // those never reach the kernel
  c.grads_are_acc = random.chance(40), c.has_dlse = random.chance(40);
  fill_case(random, c);
  if (c.has_dlse) {
    c.dlse = Array(DType::float32, c.shape.heads * c.shape.total_q);
    for (std::int64_t i = 0; i < c.dlse.size(); ++i) c.dlse.set(i, random.normal());
  }
  c.label = "seed " + std::to_string(seed) + " " + name(dtype) + " dims " + std::to_string(dims.head_dim) + "," +
            std::to_string(dims.head_dim_v) + " q " + std::to_string(c.shape.total_q) + "x" + std::to_string(c.shape.heads) +
            " k " + std::to_string(c.shape.total_k) + "x" + std::to_string(c.shape.heads_kv) + " segments " +
            std::to_string(c.segments.size()) + (c.score.softcap > 0 ? " softcap" : "");
  return c;
}

inline Case hopper_case(const Shape& shape, std::vector<Segment> segments, unsigned seed) {
  Random random(seed);
  Case c;
  c.label = "seed " + std::to_string(seed);
  c.shape = shape, c.segments = std::move(segments);
  fill_case(random, c);
  return c;
}

}  // namespace hopper_backward_case
