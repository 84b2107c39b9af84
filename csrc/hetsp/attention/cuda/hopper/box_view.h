// Which tensors Hopper's copy engine can take: a tensor as it sees one, and the rules of cuTensorMapEncodeTiled (CUDA driver
// API, "Tensor Map Object Management") for it.
//
// C++17, no CUDA: the rules are tested without a GPU.
#pragma once

#include <cstdint>

#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda::hopper {

// [tokens, heads, dim], dim contiguous. Strides in elements. One 3-D map (dim, head, token) serves all documents of a batch.
struct BoxView {
  const void* data;
  DType dtype;
  std::int64_t dim, heads, tokens;
  std::int64_t head_stride, token_stride;
};

constexpr std::int64_t box_alignment = 16;                       // bytes: of the address and of every stride
constexpr std::int64_t box_stride_limit = std::int64_t{1} << 40;  // bytes
constexpr std::int64_t box_token_limit = std::int64_t{1} << 30;   // coordinates are int32, and tiles reach past the end

constexpr std::int64_t bytes_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

constexpr BoxView box_view(const ConstView& view, DType dtype, std::int64_t tokens, std::int64_t heads, std::int64_t dim) {
  return {view.data, dtype, dim, heads, tokens, view.head_stride, view.token_stride};
}

// Bytes from one index to the next, as they are given to the driver. Along an axis of one the stride is never used and may
// be anything (torch keeps what a slice left); then it is some legal number.
constexpr std::int64_t box_stride(const BoxView& view, std::int64_t extent, std::int64_t stride) {
  return extent == 1 ? box_alignment : stride * bytes_of(view.dtype);
}

// Null where the engine can take the tensor, else why not. A stride of 0 is legal: every index reads the same row.
inline const char* box_refusal(const BoxView& view) {
  if (view.dtype == DType::float64) return "the copy engine has no maps of float64 here";
  if (view.dim < 1 || view.heads < 1 || view.tokens < 1) return "it is empty";
  if (view.tokens >= box_token_limit) return "it has 2^30 tokens or more";
  if (reinterpret_cast<std::uintptr_t>(view.data) % box_alignment != 0) return "its address is no multiple of 16 bytes";
  const std::int64_t elements = box_stride_limit / bytes_of(view.dtype);  // compared before they are multiplied
  if (view.heads > 1 && (view.head_stride < 0 || view.head_stride >= elements))
    return "its stride from head to head is negative or 2^40 bytes or more";
  if (view.tokens > 1 && (view.token_stride < 0 || view.token_stride >= elements))
    return "its stride from token to token is negative or 2^40 bytes or more";
  if (box_stride(view, view.heads, view.head_stride) % box_alignment != 0)
    return "its stride from head to head is no multiple of 16 bytes";
  if (box_stride(view, view.tokens, view.token_stride) % box_alignment != 0)
    return "its stride from token to token is no multiple of 16 bytes";
  return nullptr;
}

}  // namespace hetsp::attention::cuda::hopper
