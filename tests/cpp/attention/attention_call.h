// A kernel's call on an attention case: where its results go, in strides of their own, and the params that say so.
#pragma once

#include <cstdint>

#include "attention/attention_case.h"

namespace attention_case {

struct Output {
  Array out, lse;
};

inline Output empty_output(const Case& c) {
  const Shape& s = c.shape;
  return {Array(c.out_dtype(), s.total_q, s.heads, s.head_dim_v, s.heads * s.head_dim_v + 3, s.head_dim_v),
          Array(c.acc(), s.heads * s.total_q)};
}

inline ForwardParams forward_params(const Case& c, Output& output) {
  return {c.shape,
          c.score,
          c.segments.data(),
          static_cast<std::int64_t>(c.segments.size()),
          c.q.view(),
          c.k.view(),
          c.v.view(),
          c.sink.data(),
          c.seed_out.view(),
          c.seed_lse.data(),
          output.out.mutable_view(),
          c.out_is_acc,
          output.lse.data(),
          nullptr};
}

struct Gradients {
  Array dq, dk, dv, dsink;
};

inline Gradients empty_gradients(const Case& c) {
  const Shape& s = c.shape;
  return {Array(c.grad_dtype(), s.total_q, s.heads, s.head_dim, s.heads * s.head_dim, s.head_dim),
          Array(c.grad_dtype(), s.total_k, s.heads_kv, s.head_dim, s.heads_kv * s.head_dim + 1, s.head_dim),
          Array(c.grad_dtype(), s.total_k, s.heads_kv, s.head_dim_v, s.head_dim_v, s.total_k * s.head_dim_v),
          Array(c.acc(), c.has_sink ? s.heads : 0)};
}

inline BackwardParams backward_params(const Case& c, const Output& output, Gradients& gradients, const Array& delta) {
  return {c.shape,
          c.score,
          c.segments.data(),
          static_cast<std::int64_t>(c.segments.size()),
          c.q.view(),
          c.k.view(),
          c.v.view(),
          output.out.view(),
          c.dout.view(),
          c.out_is_acc,
          output.lse.data(),
          c.has_dlse ? c.dlse.data() : nullptr,
          c.has_sink ? c.sink.data() : nullptr,
          delta.data(),
          delta.data(),
          gradients.dq.mutable_view(),
          gradients.dk.mutable_view(),
          gradients.dv.mutable_view(),
          c.grads_are_acc,
          c.has_sink ? gradients.dsink.data() : nullptr,
          false,
          nullptr};
}

}  // namespace attention_case
