#include "hetsp/attention/cpu/backward.h"
#include "hetsp/attention/cpu/delta.h"
#include "hetsp/attention/cpu/forward.h"
#include "hetsp/attention/cpu/merge.h"
#include "hetsp/attention/cpu/pieces.h"
#include "hetsp/attention/validate.h"
#include "torch_ops/attention_ops.h"
#include "torch_ops/parallel.h"

namespace hetsp::torch_ops {

namespace {

void cpu_segments(const attention::CuSeqlens& cu_seqlens, attention::Segment* segments, int) {
  attention::cu_seqlens_to_segments(cu_seqlens, segments);
}

void cpu_lists(const attention::ListsParams&, int) {}  // the CPU builds its own

void cpu_forward(const attention::ForwardParams& params, int) {
  attention::validate_segments(params.segments, params.segment_count, params.shape.total_q, params.shape.total_k);
  TorchParallel parallel;
  attention::cpu::forward(params, parallel);
}

void cpu_pieces(const attention::PiecesParams& params, int) {
  const attention::ForwardParams& call = params.call;
  attention::validate_segments(call.segments, call.segment_count, call.shape.total_q, call.shape.total_k);
  TorchParallel parallel;
  attention::cpu::forward(params, parallel);
}

void cpu_backward(const attention::BackwardParams& params, int) {
  attention::validate_segments(params.segments, params.segment_count, params.shape.total_q, params.shape.total_k);
  TorchParallel parallel;
  attention::cpu::backward(params, parallel);
}

void cpu_delta(const attention::DeltaParams& params, int) {
  TorchParallel parallel;
  attention::cpu::delta(params, parallel);
}

void cpu_merge(const attention::MergeParams& params, int) {
  TorchParallel parallel;
  attention::cpu::merge(params, parallel);
}

constexpr AttentionLaunch kCpu{cpu_segments, cpu_lists, cpu_forward, cpu_pieces, cpu_backward, cpu_delta, cpu_merge};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(hetsp, CPU, m) { register_attention<kCpu>(m); }

}  // namespace hetsp::torch_ops
