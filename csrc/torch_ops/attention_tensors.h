// What the attention ops ask of their tensors, and how these become params. Each check throws InvalidArgument.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <initializer_list>
#include <optional>
#include <string>

#include "hetsp/attention/params.h"
#include "hetsp/base/error.h"
#include "hetsp/base/zero_pages.h"

namespace hetsp::torch_ops {

using attention::ConstView;
using attention::DType;
using attention::View;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

static_assert(sizeof(attention::Segment) == 8 * sizeof(int64_t), "a segment is one row of the [B, 8] int64 tensor");

inline std::string name(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Byte:
      return "uint8";
    default:
      return concat("torch dtype number ", static_cast<int>(type));
  }
}

inline std::string shape_of(const Tensor& t) {
  std::string text = "[";
  for (int64_t i = 0; i < t.dim(); ++i) text += (i ? ", " : "") + std::to_string(t.size(i));
  return text + "]";
}

inline ScalarType acc_of(ScalarType type) { return type == ScalarType::Double ? ScalarType::Double : ScalarType::Float; }

inline DType dtype_of(const char* what, const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Float:
      return DType::float32;
    case ScalarType::Double:
      return DType::float64;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Half:
      return DType::float16;
    default:
      throw InvalidArgument(
          concat(what, " has dtype ", name(t.scalar_type()), ", must be float64, float32, bfloat16 or float16"));
  }
}

inline void check_device(const char* what, const Tensor& t, const Tensor& like) {
  const auto text = [](const Tensor& x) {
    return x.is_cpu() ? std::string("the CPU") : concat("device ", x.get_device_index());
  };
  require(t.is_cpu() == like.is_cpu() && (t.is_cpu() || t.get_device_index() == like.get_device_index()), what, " is on ",
          text(t), ", must be on ", text(like), " like its neighbours");
}

// Device, dtype and shape; an extent of -1 is free.
inline void check(const char* what, const Tensor& t, const Tensor& like, ScalarType type,
                  std::initializer_list<int64_t> shape) {
  check_device(what, t, like);
  require(t.scalar_type() == type, what, " has dtype ", name(t.scalar_type()), ", must be ", name(type));
  bool fits = t.dim() == static_cast<int64_t>(shape.size());
  std::string wanted;
  int64_t axis = 0;
  for (const int64_t extent : shape) {
    fits = fits && (extent < 0 || t.size(axis) == extent);
    wanted += (axis++ ? ", " : "") + (extent < 0 ? std::string("any") : std::to_string(extent));
  }
  require(fits, what, " has shape ", shape_of(t), ", must be [", wanted, "]");
}

inline attention::Shape check_qkv(const Tensor& q, const Tensor& k, const Tensor& v) {
  const DType dtype = dtype_of("q", q);
  check("q", q, q, q.scalar_type(), {-1, -1, -1});
  check("k", k, q, q.scalar_type(), {-1, -1, q.size(2)});
  check("v", v, q, q.scalar_type(), {k.size(0), k.size(1), -1});
  return {q.size(0), k.size(0), q.size(1), k.size(1), q.size(2), v.size(2), dtype};
}

// Lists of other segments are not found out, but those of another number of rows or segments.
inline void check_lists(const std::optional<Tensor>& lists, const Tensor& like, const Tensor& segments,
                        const attention::Shape& shape) {
  if (!lists) return;
  check("lists", *lists, like, ScalarType::Byte, {attention::lists_bytes(segments.size(0), shape.total_q, shape.total_k)});
  require(lists->is_contiguous() && reinterpret_cast<std::uintptr_t>(lists->const_data_ptr()) % 16 == 0,
          "lists is a view of another tensor, must be as attention_lists made it");
}

// Outer strides may be anything; a last dimension that is not contiguous costs a copy.
inline Tensor with_contiguous_rows(const Tensor& t) {
  return t.size(2) == 1 || t.stride(2) == 1 ? t : torch::stable::contiguous(t);
}

inline ConstView const_view(const Tensor& t) { return {t.const_data_ptr(), t.stride(0), t.stride(1)}; }
inline View view(const Tensor& t) { return {t.mutable_data_ptr(), t.stride(0), t.stride(1)}; }
inline const void* data(const std::optional<Tensor>& t) { return t ? t->const_data_ptr() : nullptr; }

// Large results on the CPU are often fresh from the system, where the first touch of each 4 KB costs as much as some of the
// work on short sequences.
inline constexpr int64_t kLargeBytes = int64_t{4} << 20;

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> shape, ScalarType type) {
  Tensor result = torch::stable::new_empty(like, {shape.begin(), shape.size()}, type);
  const int64_t bytes = result.numel() * static_cast<int64_t>(result.element_size());
  if (result.is_cpu() && bytes >= kLargeBytes) advise_huge_pages(result.mutable_data_ptr(), static_cast<std::size_t>(bytes));
  return result;
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(torch::stable::contiguous(*t)) : std::nullopt;
}

inline int device_of(const Tensor& t) { return t.is_cpu() ? -1 : t.get_device_index(); }

// What a forward takes beside q, k and v.
struct ForwardExtras {
  Tensor segments;
  std::optional<Tensor> sink, seed_out, seed_lse, lists;

  void check(const Tensor& q, const attention::Shape& shape) const {
    const ScalarType acc = acc_of(q.scalar_type());
    torch_ops::check("segments", segments, q, ScalarType::Long, {-1, 8});
    if (sink) torch_ops::check("sink", *sink, q, acc, {shape.heads});
    if (seed_out) torch_ops::check("seed_out", *seed_out, q, acc, {shape.total_q, shape.heads, shape.head_dim_v});
    if (seed_lse) torch_ops::check("seed_lse", *seed_lse, q, acc, {shape.heads, shape.total_q});
    require(seed_out.has_value() == seed_lse.has_value(), "seed_out and seed_lse must be given together");
    check_lists(lists, q, segments, shape);
  }
  // Keeps what the params point to.
  void fill(attention::ForwardParams& params) {
    segments = torch::stable::contiguous(segments);
    sink = contiguous(sink), seed_lse = contiguous(seed_lse);
    if (seed_out) seed_out = with_contiguous_rows(*seed_out);
    params.segments = static_cast<const attention::Segment*>(segments.const_data_ptr());
    params.segment_count = segments.size(0);
    params.sink = data(sink);
    if (seed_out) params.seed_out = const_view(*seed_out);
    params.seed_lse = data(seed_lse), params.lists = data(lists);
  }
};

struct ForwardResults {
  Tensor out, lse;

  ForwardResults(const Tensor& q, attention::ForwardParams& params, bool partial)
      : out(empty(q, {params.shape.total_q, params.shape.heads, params.shape.head_dim_v},
                  partial ? acc_of(q.scalar_type()) : q.scalar_type())),
        lse(empty(q, {params.shape.heads, params.shape.total_q}, acc_of(q.scalar_type()))) {
    params.out = view(out), params.out_is_acc = partial, params.lse = lse.mutable_data_ptr();
  }
};

}  // namespace hetsp::torch_ops
