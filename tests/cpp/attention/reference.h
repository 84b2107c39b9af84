// The definition of docs/attention.md, pair by pair: slow and obvious. In double it is the truth; in float it is the plain
// maths whose error a kernel may at most double.
#pragma once

#include "attention/problem.h"

namespace attention_test {

template <class Real>
struct Pair {
  std::int64_t key;
  Real score, slope;  // slope: d score / d (softmax_scale q . k)
};

template <class Real>
std::vector<Pair<Real>> visible_pairs_of(const Problem& p, std::int64_t row, std::int64_t head) {
  const std::int64_t head_kv = head / (p.shape.heads / p.shape.heads_kv);
  std::vector<Pair<Real>> pairs;
  for (const Segment& s : p.segments) {
    if (row < s.q_begin || row >= s.q_end) continue;
    for (std::int64_t key = s.k_begin; key < s.k_end; ++key) {
      const std::int64_t distance = (s.k_pos0 + key - s.k_begin) - (s.q_pos0 + row - s.q_begin);
      if ((s.left >= 0 && distance < -s.left) || (s.right >= 0 && distance > s.right)) continue;
      Real x = 0;
      for (std::int64_t i = 0; i < p.shape.head_dim; ++i)
        x += static_cast<Real>(p.q.get(row, head, i)) * static_cast<Real>(p.k.get(key, head_kv, i));
      x *= static_cast<Real>(p.score.softmax_scale);
      const auto cap = static_cast<Real>(p.score.softcap);
      const Real squashed = cap > 0 ? std::tanh(x / cap) : Real(0);
      pairs.push_back({key, cap > 0 ? cap * squashed : x, 1 - squashed * squashed});
    }
  }
  return pairs;
}

// One row of one head: forward, then its share of every gradient, from the exact out and lse.
template <class Real>
void reference_row(const Problem& p, Result& r, std::int64_t row, std::int64_t head) {
  const std::int64_t head_kv = head / (p.shape.heads / p.shape.heads_kv), dim_v = p.shape.head_dim_v;
  const auto at = static_cast<std::size_t>(head * p.shape.total_q + row);
  const std::vector<Pair<Real>> pairs = visible_pairs_of<Real>(p, row, head);
  const auto get = [](double x) { return static_cast<Real>(x); };
  const Real sink = get(p.with_sink ? p.sink.get(static_cast<std::size_t>(head)) : -kInf);
  const Real seed = get(p.with_seed ? p.seed_lse.get(at) : -kInf);
  Real top = std::max(sink, seed);
  for (const Pair<Real>& pair : pairs) top = std::max(top, pair.score);
  if (top == -kInf) return r.lse.set(at, -kInf);
  Real sum = std::exp(sink - top) + std::exp(seed - top);
  for (const Pair<Real>& pair : pairs) sum += std::exp(pair.score - top);
  const Real lse = top + std::log(sum);
  r.lse.set(at, lse);
  std::vector<Real> out(static_cast<std::size_t>(dim_v));
  for (std::int64_t i = 0; i < dim_v; ++i) {
    Real& o = out[static_cast<std::size_t>(i)];
    if (seed != -kInf) o += std::exp(seed - lse) * get(p.seed_out.get(row, head, i));
    for (const Pair<Real>& pair : pairs) o += std::exp(pair.score - lse) * get(p.v.get(pair.key, head_kv, i));
    r.out.set(row, head, i, o);
  }
  Real delta = get(p.with_dlse ? -p.dlse.get(at) : 0.0);
  for (std::int64_t i = 0; i < dim_v; ++i) delta += get(p.dout.get(row, head, i)) * out[static_cast<std::size_t>(i)];
  if (p.with_sink) {
    const auto a = static_cast<std::size_t>(head);
    r.dsink.set(a, r.dsink.get(a) - std::exp(sink - lse) * delta);
  }
  for (const Pair<Real>& pair : pairs) {
    const Real weight = std::exp(pair.score - lse);
    Real dp = 0;
    for (std::int64_t i = 0; i < dim_v; ++i) {
      dp += get(p.dout.get(row, head, i)) * get(p.v.get(pair.key, head_kv, i));
      r.dv.set(pair.key, head_kv, i, r.dv.get(pair.key, head_kv, i) + weight * get(p.dout.get(row, head, i)));
    }
    const Real ds = weight * (dp - delta) * pair.slope * get(p.score.softmax_scale);
    for (std::int64_t i = 0; i < p.shape.head_dim; ++i) {
      r.dq.set(row, head, i, r.dq.get(row, head, i) + ds * get(p.k.get(pair.key, head_kv, i)));
      r.dk.set(pair.key, head_kv, i, r.dk.get(pair.key, head_kv, i) + ds * get(p.q.get(row, head, i)));
    }
  }
}

template <class Real = double>
Result reference(const Problem& p) {
  constexpr DType type = sizeof(Real) == 8 ? DType::float64 : DType::float32;
  Result r = make_result(p, type, type, type);
  for (Rows* rows : {&r.out, &r.dq, &r.dk, &r.dv}) rows->fill([] { return 0.0; });
  for (std::size_t i = 0; i < r.dsink.count(); ++i) r.dsink.set(i, 0.0);
  for (std::int64_t row = 0; row < p.shape.total_q; ++row)
    for (std::int64_t head = 0; head < p.shape.heads; ++head) reference_row<Real>(p, r, row, head);
  return r;
}

// Norm of the difference over norm of the reference; infinities must match exactly, a NaN counts as infinitely far.
inline double relative_error(const Buffer& x, const Buffer& expected) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < expected.count(); ++i) {
    const double a = x.get(i), b = expected.get(i);
    if (std::isinf(b) || !std::isfinite(a)) {
      if (a != b) return kInf;
      continue;
    }
    difference += (a - b) * (a - b), norm += b * b;
  }
  return difference == 0 ? 0.0 : std::sqrt(difference / std::max(norm, 1e-300));
}
inline double relative_error(const Rows& x, const Rows& expected) { return relative_error(x.buffer(), expected.buffer()); }

}  // namespace attention_test
