#include "c10d/reduction.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <algorithm>

#include "hetsp/base/error.h"

namespace hetsp::routed {

namespace {

using Op = ::c10d::ReduceOp;

constexpr const char* names[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM", "UNUSED"};

// Below ATen's grain, so that it does not start a team of threads on top of ours.
constexpr std::int64_t block = 16384;

template <class Body>
void in_blocks(std::int64_t size, const Body& body) {
  const at::AutoDispatchBelowAutograd below;
  for (std::int64_t at = 0; at < size; at += block) body(at, std::min(block, size - at));
}

}  // namespace

Reduction::Reduction(const ::c10d::ReduceOp& op, at::ScalarType type, int ranks) : op_(op), ranks_(ranks) {
  require(op_ != Op::PREMUL_SUM && op_ != Op::UNUSED, "ReduceOp ", names[std::min<std::size_t>(op_, 9)],
          " is not supported; allowed: SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR");
  require(op_ != Op::AVG || at::isFloatingType(type) || at::isComplexType(type),
          "ReduceOp AVG needs floating or complex numbers, not ", type);
  try {  // ATen knows which operations a type has; here it says so on every rank alike, and before anything was sent
    auto one = at::ones({1}, at::TensorOptions().dtype(type));
    add(one, one.clone());
  } catch (const c10::Error& error) {
    throw InvalidArgument(concat("ReduceOp ", names[op_], " does not exist for ", type, ": ", error.what_without_backtrace()));
  }
}

void Reduction::add(at::Tensor& sum, const at::Tensor& other) const {
  in_blocks(sum.numel(), [&](std::int64_t at, std::int64_t size) {
    auto part = sum.narrow(0, at, size);
    add_block(part, other.narrow(0, at, size));
  });
}

void Reduction::add_block(at::Tensor& sum, const at::Tensor& other) const {
  switch (op_) {
    case Op::PRODUCT:
      at::mul_out(sum, other, sum);
      break;
    case Op::MIN:
      at::minimum_out(sum, other, sum);
      break;
    case Op::MAX:
      at::maximum_out(sum, other, sum);
      break;
    case Op::BAND:
      at::bitwise_and_out(sum, other, sum);
      break;
    case Op::BOR:
      at::bitwise_or_out(sum, other, sum);
      break;
    case Op::BXOR:
      at::bitwise_xor_out(sum, other, sum);
      break;
    default:
      at::add_out(sum, other, sum);
  }
}

void Reduction::finish(at::Tensor& sum) const {
  if (op_ != Op::AVG) return;
  in_blocks(sum.numel(), [&](std::int64_t at, std::int64_t size) { sum.narrow(0, at, size).div_(ranks_); });
}

}  // namespace hetsp::routed
