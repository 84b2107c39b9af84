// The answer to an attention case by the definition in float64, pair by pair, and how far a kernel may be from it: each
// number comes with the size of what was added up to give it, so that the bound is on every element and knows no luck.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "attention/attention_case.h"

namespace attention_case {

// Half a unit in the last place, relative.
inline double roundoff(DType dtype) {
  return dtype == DType::float64 ? 0x1p-53 : dtype == DType::float32 ? 0x1p-24 : dtype == DType::bfloat16 ? 0x1p-8 : 0x1p-11;
}
// What rounding to dtype may add below its normal numbers, absolute.
inline double least(DType dtype) { return dtype == DType::float16 ? 0x1p-25 : dtype == DType::float64 ? 0x1p-1000 : 0x1p-140; }

// A number and the size of what was added up to give it, from which its rounding error is bounded; and how much error comes on
// top where the factors of the sum (weights, score gradients, a float dout) are rounded to the 16-bit type of the inputs.
struct Sum {
  double value = 0, mass = 0, coarse = 0;
  void add(double term) { value += term, mass += std::abs(term); }
};

struct Forward {
  std::vector<Sum> out;  // [total_q, heads, head_dim_v]
  std::vector<Sum> lse;  // [heads, total_q]
};
struct Backward {
  std::vector<Sum> dq, dk, dv, dsink;
};

// s of params.h; its mass is also the relative error, in units, that its own rounding gives to e^s.
inline Sum scored(const Case& c, std::int64_t row, std::int64_t head, std::int64_t key) {
  const std::int64_t head_kv = head / (c.shape.heads / c.shape.heads_kv);
  Sum x;
  for (std::int64_t i = 0; i < c.shape.head_dim; ++i)
    x.add(c.score.softmax_scale * c.q.at(row, head, i) * c.k.at(key, head_kv, i));
  if (c.score.softcap > 0) x.value = c.score.softcap * std::tanh(x.value / c.score.softcap);
  return x;
}

inline Forward forward(const Case& c) {
  const Shape& s = c.shape;
  Forward result{std::vector<Sum>(static_cast<std::size_t>(s.total_q * s.heads * s.head_dim_v)),
                 std::vector<Sum>(static_cast<std::size_t>(s.heads * s.total_q), {-kInfinity, 0, 0})};
  for (std::int64_t row = 0; row < s.total_q; ++row)
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t head_kv = head / (s.heads / s.heads_kv), statistic = head * s.total_q + row;
      const double seed = c.has_seed ? c.seed_lse.at(statistic) : -kInfinity, sink = c.has_sink ? c.sink.at(head) : -kInfinity;
      std::vector<std::pair<double, std::int64_t>> scores;  // (score, key)
      double top = std::max(seed, sink), blur = 1;
      for (const Segment& segment : c.segments)
        for (std::int64_t key = segment.k_begin; key < segment.k_end; ++key) {
          if (!visible(segment, row, key)) continue;
          const Sum score = scored(c, row, head, key);
          scores.emplace_back(score.value, key);
          top = std::isnan(score.value) ? score.value : std::max(top, score.value);  // and max(NaN, x) is NaN
          blur = std::max(blur, score.mass);
        }
      if (top == -kInfinity) continue;
      double total = std::exp(seed - top) + std::exp(sink - top);
      for (const auto& [score, key] : scores) total += std::exp(score - top);
      const double lse = top + std::log(total);
      result.lse[static_cast<std::size_t>(statistic)] = {lse, std::abs(lse) + blur, 0};
      for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
        Sum& out = result.out[static_cast<std::size_t>((row * s.heads + head) * s.head_dim_v + i)];
        if (seed != -kInfinity) out.add(std::exp(seed - lse) * c.seed_out.at(row, head, i));
        for (const auto& [score, key] : scores) {
          const double v = c.v.at(key, head_kv, i), weight = std::exp(score - lse);
          out.add(weight * v);
          out.coarse += (roundoff(s.dtype) * weight + least(s.dtype)) * std::abs(v);
        }
        out.mass *= blur;
      }
    }
  return result;
}

// From the very out and lse that the kernel is given, so that only the kernel's own arithmetic is judged.
inline Backward backward(const Case& c, const Array& out, const Array& lse) {
  const Shape& s = c.shape;
  const auto sums = [](std::int64_t count) { return std::vector<Sum>(static_cast<std::size_t>(count)); };
  const auto add = [](Sum& sum, double value, double mass, double coarse = 0) {
    sum.value += value, sum.mass += mass, sum.coarse += coarse;
  };
  const double rounding = roundoff(s.dtype), rounding_dout = c.out_is_acc ? rounding : 0;
  Backward result{sums(s.total_q * s.heads * s.head_dim), sums(s.total_k * s.heads_kv * s.head_dim),
                  sums(s.total_k * s.heads_kv * s.head_dim_v), sums(c.has_sink ? s.heads : 0)};
  for (std::int64_t row = 0; row < s.total_q; ++row)
    for (std::int64_t head = 0; head < s.heads; ++head) {
      const std::int64_t head_kv = head / (s.heads / s.heads_kv);
      const double norm = lse.at(head * s.total_q + row);
      if (norm == -kInfinity) continue;
      Sum delta;
      for (std::int64_t i = 0; i < s.head_dim_v; ++i) delta.add(c.dout.at(row, head, i) * out.at(row, head, i));
      if (c.has_dlse) delta.add(-c.dlse.at(head * s.total_q + row));
      if (c.has_sink) {
        const double p = std::exp(c.sink.at(head) - norm);
        add(result.dsink[static_cast<std::size_t>(head)], -p * delta.value, p * delta.mass * (1 + std::abs(norm)));
      }
      for (const Segment& segment : c.segments)
        for (std::int64_t key = segment.k_begin; key < segment.k_end; ++key) {
          if (!visible(segment, row, key)) continue;
          const Sum score = scored(c, row, head, key);
          const double p = std::exp(score.value - norm), blur = 1 + score.mass + std::abs(norm);
          Sum dp;
          for (std::int64_t i = 0; i < s.head_dim_v; ++i) {
            const double dout = c.dout.at(row, head, i);
            dp.add(dout * c.v.at(key, head_kv, i));
            add(result.dv[static_cast<std::size_t>((key * s.heads_kv + head_kv) * s.head_dim_v + i)], p * dout,
                p * std::abs(dout) * blur, ((rounding + rounding_dout) * p + least(s.dtype)) * std::abs(dout));
          }
          const double slope = c.score.softcap > 0 ? 1 - std::pow(score.value / c.score.softcap, 2) : 1;
          const double ds = p * slope * c.score.softmax_scale * (dp.value - delta.value);
          const double mass = p * c.score.softmax_scale * (dp.mass + delta.mass) * blur;
          const double coarse =
              rounding * std::abs(ds) + c.score.softmax_scale * (least(s.dtype) + p * rounding_dout * dp.mass);
          for (std::int64_t i = 0; i < s.head_dim; ++i) {
            const double q = c.q.at(row, head, i), k = c.k.at(key, head_kv, i);
            add(result.dq[static_cast<std::size_t>((row * s.heads + head) * s.head_dim + i)], ds * k, mass * std::abs(k),
                coarse * std::abs(k));
            add(result.dk[static_cast<std::size_t>((key * s.heads_kv + head_kv) * s.head_dim + i)], ds * q, mass * std::abs(q),
                coarse * std::abs(q));
          }
        }
    }
  return result;
}

// How far `actual`, of type dtype, is from the sums: the largest error in units of the bound
//   roundoff(dtype) |value| + roundoff(acc) mass + least subnormal [+ coarse]; infinite where one is NaN and the other is not.
inline double worst_error(const std::vector<double>& actual, const std::vector<Sum>& expected, DType dtype, DType acc,
                          bool rounded_factors = false) {
  double worst = actual.size() == expected.size() ? 0 : kInfinity;
  for (std::size_t i = 0; i < std::min(actual.size(), expected.size()); ++i) {
    const double stored = (dtype == acc ? 0 : roundoff(dtype) * std::abs(expected[i].value)) + least(dtype) +
                          (rounded_factors ? expected[i].coarse : 0);
    if (actual[i] == expected[i].value) continue;  // infinities too
    if (std::isnan(actual[i]) && std::isnan(expected[i].value)) continue;
    const double error = std::abs(actual[i] - expected[i].value) - stored;
    if (std::isnan(error)) return kInfinity;
    if (error > 0) worst = std::max(worst, error / (roundoff(acc) * expected[i].mass));
  }
  return worst;
}

}  // namespace attention_case
