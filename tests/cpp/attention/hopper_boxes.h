// Cases in layouts that Hopper's copy engine takes, and their maps. Include support/hopper_on_cpu.h before.
#pragma once

#include <cstdint>

#include "attention/attention_case.h"
#include "hetsp/attention/cuda/hopper/box_view.h"
#include "support/hopper_on_cpu.h"

namespace attention_case {

// A layout that the copy engine takes: head-major, a slice of wider rows, one head for all, packed.
inline Array box_array(Random& random, const Array& from, std::int64_t tokens, std::int64_t heads, std::int64_t dim) {
  const std::int64_t kind = random.between(0, 3);
  Array to = kind == 0   ? Array(from.dtype(), tokens, heads, dim, dim, tokens * dim)
             : kind == 1 ? Array(from.dtype(), tokens, heads, dim, 3 * heads * dim + 16, dim + 8)
                         : Array(from.dtype(), tokens, heads, dim, heads * dim, dim);
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < dim; ++i) to.set(t, h, i, from.at(t, h, i));
  return to;
}

inline void make_boxable(Random& random, Case& c) {
  const Shape& s = c.shape;
  c.q = box_array(random, c.q, s.total_q, s.heads, s.head_dim);
  c.k = box_array(random, c.k, s.total_k, s.heads_kv, s.head_dim);
  c.v = box_array(random, c.v, s.total_k, s.heads_kv, s.head_dim_v);
}

inline hetsp::attention::cuda::hopper::TensorMap map_of(const ConstView& view, DType dtype, std::int64_t tokens,
                                                        std::int64_t heads, std::int64_t dim, int rows) {
  const hetsp::attention::cuda::hopper::BoxView box = hetsp::attention::cuda::hopper::box_view(view, dtype, tokens, heads, dim);
  if (tokens == 0) return {};  // nothing will be read
  return cuda_on_cpu::tensor_map(const_cast<void*>(view.data), 2, false, {dim, heads, tokens},
                                 {hetsp::attention::cuda::hopper::box_stride(box, heads, view.head_stride),
                                  hetsp::attention::cuda::hopper::box_stride(box, tokens, view.token_stride)},
                                 {64, 1, rows});
}

}  // namespace attention_case
