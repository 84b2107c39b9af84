// Which instantiation of a kernel serves a shape.
#pragma once

#include <cstdint>
#include <type_traits>

#include "hetsp/attention/cuda_kernels.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cuda {

template <int Dim>
using Bucket = std::integral_constant<int, Dim>;

// Calls call(Acc(), Bucket<Dim>()) for the accumulate type and the least bucket that holds both head dimensions. Six
// instantiations a kernel: the element type of a tensor is a branch where it is read, not a template argument.
template <class Call>
void select(const Shape& shape, const Call& call) {
  const std::int64_t dim = shape.head_dim > shape.head_dim_v ? shape.head_dim : shape.head_dim_v;
  require(dim <= max_head_dim, "head_dim ", shape.head_dim, ", head_dim_v ", shape.head_dim_v,
          ": the CUDA kernels take at most ", max_head_dim);
  const auto bucket = [&](auto acc) {
    if (dim <= 64) return call(acc, Bucket<64>());
    if (dim <= 128) return call(acc, Bucket<128>());
    return call(acc, Bucket<256>());
  };
  if (shape.dtype == DType::float64) return bucket(double());
  return bucket(float());
}

}  // namespace hetsp::attention::cuda
