// The attention ops for any device: check -> allocate -> params -> launch. A device is a table of launch functions; its
// file (attention_<device>.cc) holds nothing but the table and the registration.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "hetsp/attention/cu_seqlens.h"
#include "hetsp/attention/params.h"
#include "hetsp/attention/pieces.h"

namespace hetsp::torch_ops {

using torch::stable::Tensor;

// `device` is torch's device index (for streams); pointers in the params are on that device. Each function may throw
// InvalidArgument. Segments are not checked before the launch, because on CUDA the host cannot see them.
struct AttentionLaunch {
  void (*cu_seqlens_to_segments)(const attention::CuSeqlens& cu_seqlens, attention::Segment* segments, int device);
  void (*lists)(const attention::ListsParams& params, int device);
  void (*forward)(const attention::ForwardParams& params, int device);
  void (*pieces)(const attention::PiecesParams& params, int device);
  void (*backward)(const attention::BackwardParams& params, int device);
  void (*delta)(const attention::DeltaParams& params, int device);
  void (*merge)(const attention::MergeParams& params, int device);
};

Tensor cu_seqlens_to_segments(const AttentionLaunch& launch, Tensor cu_seqlens_q, Tensor cu_seqlens_k, int64_t window_left,
                              int64_t window_right, int64_t total_q, int64_t total_k, int64_t max_seqlen_q,
                              int64_t max_seqlen_k, std::optional<Tensor> seqused_q, std::optional<Tensor> seqused_k);

Tensor attention_lists(const AttentionLaunch& launch, Tensor segments, int64_t total_q, int64_t total_k);

// The forward is repeatable as it is: `deterministic` is there for the backward, which autograd makes of its arguments.
std::tuple<Tensor, Tensor> varlen_attention_forward(const AttentionLaunch& launch, Tensor q, Tensor k, Tensor v,
                                                    Tensor segments, double softmax_scale, double softcap,
                                                    std::optional<Tensor> sink, std::optional<Tensor> seed_out,
                                                    std::optional<Tensor> seed_lse, bool partial, bool deterministic,
                                                    std::optional<Tensor> lists);

// `epochs`: of each piece, or -1: it is here already. `late` is set by a GPU alone, see PiecesParams.
std::tuple<Tensor, Tensor, Tensor> pieces_attention_forward(const AttentionLaunch& launch, Tensor q, std::vector<Tensor> k,
                                                            std::vector<Tensor> v, Tensor segments, std::optional<Tensor> ready,
                                                            std::vector<int64_t> epochs, double softmax_scale, double softcap,
                                                            std::optional<Tensor> sink, std::optional<Tensor> seed_out,
                                                            std::optional<Tensor> seed_lse, bool partial, double patience,
                                                            std::optional<Tensor> lists);

std::tuple<Tensor, Tensor, Tensor, Tensor> varlen_attention_backward(
    const AttentionLaunch& launch, Tensor grad_out, std::optional<Tensor> grad_lse, Tensor q, Tensor k, Tensor v, Tensor out,
    Tensor lse, Tensor segments, double softmax_scale, double softcap, std::optional<Tensor> sink, bool partial,
    std::optional<Tensor> delta, bool deterministic, std::optional<Tensor> lists);

Tensor attention_delta(const AttentionLaunch& launch, Tensor grad_out, std::optional<Tensor> grad_lse, Tensor out, Tensor lse);

std::tuple<Tensor, Tensor> merge_attention(const AttentionLaunch& launch, Tensor out_a, Tensor lse_a, Tensor out_b,
                                           Tensor lse_b);

// Binds an op to a device's table: `&On<table, &op>::call` has the schema's arguments alone, as TORCH_BOX wants it.
template <const AttentionLaunch& launch, auto op>
struct On;
template <const AttentionLaunch& launch, class Result, class... Args, Result (*op)(const AttentionLaunch&, Args...)>
struct On<launch, op> {
  static Result call(Args... args) { return op(launch, std::move(args)...); }
};

// Registers all ops of this page: inside STABLE_TORCH_LIBRARY_IMPL(hetsp, <device>, m).
template <const AttentionLaunch& launch, class Library>
void register_attention(Library& m) {
  m.impl("cu_seqlens_to_segments", TORCH_BOX((&On<launch, &cu_seqlens_to_segments>::call)));
  m.impl("attention_lists", TORCH_BOX((&On<launch, &attention_lists>::call)));
  m.impl("varlen_attention_forward", TORCH_BOX((&On<launch, &varlen_attention_forward>::call)));
  m.impl("pieces_attention_forward", TORCH_BOX((&On<launch, &pieces_attention_forward>::call)));
  m.impl("varlen_attention_backward", TORCH_BOX((&On<launch, &varlen_attention_backward>::call)));
  m.impl("attention_delta", TORCH_BOX((&On<launch, &attention_delta>::call)));
  m.impl("merge_attention", TORCH_BOX((&On<launch, &merge_attention>::call)));
}

}  // namespace hetsp::torch_ops
