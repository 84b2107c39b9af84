// What a reducing collective does to two pieces.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Types.hpp>

namespace hetsp::routed {

// One of torch's ReduceOps for one element type. Any thread may use it: it starts none.
class Reduction {
 public:
  // Throws InvalidArgument for an operation that does not exist for `type`.
  Reduction(const ::c10d::ReduceOp& op, at::ScalarType type, int ranks);

  void add(at::Tensor& sum, const at::Tensor& other) const;  // sum = other (op) sum; flat, of one size
  void finish(at::Tensor& sum) const;                        // what AVG does at the end

 private:
  void add_block(at::Tensor& sum, const at::Tensor& other) const;

  ::c10d::ReduceOp::RedOpType op_;
  int ranks_;
};

}  // namespace hetsp::routed
