#include "torch_ops/attention_ops.h"

#include "hetsp/attention/validate.h"
#include "hetsp/base/error.h"
#include "torch_ops/at_edge.h"
#include "torch_ops/attention_tensors.h"

namespace hetsp::torch_ops {

Tensor cu_seqlens_to_segments(const AttentionLaunch& launch, Tensor cu_q, Tensor cu_k, int64_t window_left,
                              int64_t window_right, int64_t total_q, int64_t total_k, int64_t max_seqlen_q,
                              int64_t max_seqlen_k, std::optional<Tensor> seqused_q, std::optional<Tensor> seqused_k) {
  return at_edge([&] {
    const ScalarType type = cu_q.scalar_type();
    require(type == ScalarType::Int || type == ScalarType::Long, "cu_seqlens_q has dtype ", name(type),
            ", must be int32 or int64");
    require(cu_q.dim() == 1 && cu_q.size(0) >= 1, "cu_seqlens_q has shape ", shape_of(cu_q), ", must be [sequences + 1]");
    check("cu_seqlens_k", cu_k, cu_q, type, {cu_q.size(0)});
    cu_q = torch::stable::contiguous(cu_q), cu_k = torch::stable::contiguous(cu_k);
    const int64_t batch = cu_q.size(0) - 1;
    if (seqused_q) check("seqused_q", *seqused_q, cu_q, type, {batch});
    if (seqused_k) check("seqused_k", *seqused_k, cu_q, type, {batch});
    seqused_q = contiguous(seqused_q), seqused_k = contiguous(seqused_k);
    Tensor segments = empty(cu_q, {batch, 8}, ScalarType::Long);
    const attention::CuSeqlens in{cu_q.const_data_ptr(),
                                  cu_k.const_data_ptr(),
                                  type == ScalarType::Long,
                                  batch,
                                  total_q,
                                  total_k,
                                  max_seqlen_q,
                                  max_seqlen_k,
                                  window_left,
                                  window_right,
                                  data(seqused_q),
                                  data(seqused_k)};
    attention::check_window(in);
    launch.cu_seqlens_to_segments(in, static_cast<attention::Segment*>(segments.mutable_data_ptr()), device_of(cu_q));
    return segments;
  });
}

Tensor attention_lists(const AttentionLaunch& launch, Tensor segments, int64_t total_q, int64_t total_k) {
  return at_edge([&] {
    check("segments", segments, segments, ScalarType::Long, {-1, 8});
    require(total_q >= 0 && total_k >= 0, "total_q, total_k are ", total_q, ", ", total_k, ", must be >= 0");
    segments = torch::stable::contiguous(segments);
    Tensor lists = empty(segments, {attention::lists_bytes(segments.size(0), total_q, total_k)}, ScalarType::Byte);
    launch.lists({static_cast<const attention::Segment*>(segments.const_data_ptr()), segments.size(0), total_q, total_k,
                  lists.mutable_data_ptr()},
                 device_of(segments));
    return lists;
  });
}

std::tuple<Tensor, Tensor> varlen_attention_forward(const AttentionLaunch& launch, Tensor q, Tensor k, Tensor v,
                                                    Tensor segments, double softmax_scale, double softcap,
                                                    std::optional<Tensor> sink, std::optional<Tensor> seed_out,
                                                    std::optional<Tensor> seed_lse, bool partial, bool,
                                                    std::optional<Tensor> lists) {
  return at_edge([&] {
    attention::ForwardParams params{};
    params.shape = check_qkv(q, k, v);
    params.score = {softmax_scale, softcap};
    ForwardExtras extras{segments, sink, seed_out, seed_lse, lists};
    extras.check(q, params.shape);
    q = with_contiguous_rows(q), k = with_contiguous_rows(k), v = with_contiguous_rows(v);
    params.q = const_view(q), params.k = const_view(k), params.v = const_view(v);
    extras.fill(params);
    const ForwardResults results(q, params, partial);
    attention::validate(params);
    launch.forward(params, device_of(q));
    return std::tuple(results.out, results.lse);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> varlen_attention_backward(
    const AttentionLaunch& launch, Tensor grad_out, std::optional<Tensor> grad_lse, Tensor q, Tensor k, Tensor v, Tensor out,
    Tensor lse, Tensor segments, double softmax_scale, double softcap, std::optional<Tensor> sink, bool partial,
    std::optional<Tensor> delta, bool deterministic, std::optional<Tensor> lists) {
  return at_edge([&] {
    attention::BackwardParams params{};
    const attention::Shape shape = params.shape = check_qkv(q, k, v);
    const ScalarType type = q.scalar_type(), acc = acc_of(type), out_type = out.scalar_type() == acc ? acc : type;
    check("segments", segments, q, ScalarType::Long, {-1, 8});
    check("out", out, q, out_type, {shape.total_q, shape.heads, shape.head_dim_v});
    check("grad_out", grad_out, q, out_type, {shape.total_q, shape.heads, shape.head_dim_v});
    check("lse", lse, q, acc, {shape.heads, shape.total_q});
    if (grad_lse) check("grad_lse", *grad_lse, q, acc, {shape.heads, shape.total_q});
    if (sink) check("sink", *sink, q, acc, {shape.heads});
    if (delta) check("delta", *delta, q, acc, {shape.heads, shape.total_q});
    check_lists(lists, q, segments, shape);
    require(!(delta && grad_lse), "grad_lse is given beside delta, which holds it already");

    q = with_contiguous_rows(q), k = with_contiguous_rows(k), v = with_contiguous_rows(v);
    out = with_contiguous_rows(out), grad_out = with_contiguous_rows(grad_out);
    segments = torch::stable::contiguous(segments), lse = torch::stable::contiguous(lse);
    sink = contiguous(sink), grad_lse = contiguous(grad_lse);
    const ScalarType grad_type = partial ? acc : type;
    Tensor dq = empty(q, {shape.total_q, shape.heads, shape.head_dim}, grad_type);
    Tensor dk = empty(q, {shape.total_k, shape.heads_kv, shape.head_dim}, grad_type);
    Tensor dv = empty(q, {shape.total_k, shape.heads_kv, shape.head_dim_v}, grad_type);
    Tensor dsink = empty(q, {sink ? shape.heads : 0}, acc);
    const bool fill_delta = !delta;
    delta = fill_delta ? empty(q, {shape.heads, shape.total_q}, acc) : torch::stable::contiguous(*delta);

    params.score = {softmax_scale, softcap};
    params.segments = static_cast<const attention::Segment*>(segments.const_data_ptr());
    params.segment_count = segments.size(0);
    params.q = const_view(q), params.k = const_view(k), params.v = const_view(v);
    params.out = const_view(out), params.dout = const_view(grad_out), params.out_is_acc = out_type == acc;
    params.lse = lse.const_data_ptr(), params.dlse = data(grad_lse), params.sink = data(sink);
    params.delta = delta->const_data_ptr(), params.fill_delta = fill_delta ? delta->mutable_data_ptr() : nullptr;
    params.dq = view(dq), params.dk = view(dk), params.dv = view(dv), params.grads_are_acc = partial;
    params.dsink = sink ? dsink.mutable_data_ptr() : nullptr;
    params.deterministic = deterministic, params.lists = data(lists);
    attention::validate(params);
    launch.backward(params, device_of(q));
    return std::tuple(dq, dk, dv, dsink);
  });
}

Tensor attention_delta(const AttentionLaunch& launch, Tensor grad_out, std::optional<Tensor> grad_lse, Tensor out, Tensor lse) {
  return at_edge([&] {
    const DType dtype = dtype_of("out", out);
    const ScalarType acc = acc_of(out.scalar_type());
    check("out", out, out, out.scalar_type(), {-1, -1, -1});
    const int64_t total_q = out.size(0), heads = out.size(1), head_dim_v = out.size(2);
    check("grad_out", grad_out, out, out.scalar_type(), {total_q, heads, head_dim_v});
    check("lse", lse, out, acc, {heads, total_q});
    if (grad_lse) check("grad_lse", *grad_lse, out, acc, {heads, total_q});

    out = with_contiguous_rows(out), grad_out = with_contiguous_rows(grad_out);
    lse = torch::stable::contiguous(lse), grad_lse = contiguous(grad_lse);
    Tensor delta = empty(out, {heads, total_q}, acc);
    const attention::DeltaParams params{total_q,
                                        heads,
                                        head_dim_v,
                                        dtype,
                                        const_view(out),
                                        const_view(grad_out),
                                        lse.const_data_ptr(),
                                        data(grad_lse),
                                        delta.mutable_data_ptr()};
    attention::validate(params);
    launch.delta(params, device_of(out));
    return delta;
  });
}

std::tuple<Tensor, Tensor> merge_attention(const AttentionLaunch& launch, Tensor out_a, Tensor lse_a, Tensor out_b,
                                           Tensor lse_b) {
  return at_edge([&] {
    const ScalarType acc = out_a.scalar_type();
    require(acc == ScalarType::Float || acc == ScalarType::Double, "out_a has dtype ", name(acc),
            ", must be float32 or float64: partial results are merged unrounded");
    check("out_a", out_a, out_a, acc, {-1, -1, -1});
    const int64_t total_q = out_a.size(0), heads = out_a.size(1), head_dim_v = out_a.size(2);
    check("out_b", out_b, out_a, acc, {total_q, heads, head_dim_v});
    check("lse_a", lse_a, out_a, acc, {heads, total_q});
    check("lse_b", lse_b, out_a, acc, {heads, total_q});

    out_a = with_contiguous_rows(out_a), out_b = with_contiguous_rows(out_b);
    lse_a = torch::stable::contiguous(lse_a), lse_b = torch::stable::contiguous(lse_b);
    Tensor out = empty(out_a, {total_q, heads, head_dim_v}, acc);
    Tensor lse = empty(out_a, {heads, total_q}, acc);
    const attention::MergeParams params{total_q,
                                        heads,
                                        head_dim_v,
                                        acc == ScalarType::Double,
                                        const_view(out_a),
                                        const_view(out_b),
                                        lse_a.const_data_ptr(),
                                        lse_b.const_data_ptr(),
                                        view(out),
                                        lse.mutable_data_ptr()};
    attention::validate(params);
    launch.merge(params, device_of(out_a));
    return std::tuple(out, lse);
  });
}

}  // namespace hetsp::torch_ops
