// The schemas of every op of torch.ops.hetsp, in one place. Each implementation registers itself in its own file; fake,
// autograd and autocast are Python (hetsp_ext/attention).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(hetsp, m) {
  m.def("cuda_info() -> int[]");
  m.def("force_cpu_capability(str? name) -> str");
  m.def("set_cuda_kernels(str? name, bool only) -> str");
  m.def("cuda_kernels() -> str");
  m.def("cuda_kernels_of(int capability) -> str");
  m.def(
      "cu_seqlens_to_segments(Tensor cu_seqlens_q, Tensor cu_seqlens_k, int window_left, int window_right, SymInt total_q, "
      "SymInt total_k, SymInt max_seqlen_q, SymInt max_seqlen_k, Tensor? seqused_q=None, Tensor? seqused_k=None) -> Tensor");
  m.def("attention_lists(Tensor segments, SymInt total_q, SymInt total_k) -> Tensor");
  m.def(
      "varlen_attention_forward(Tensor q, Tensor k, Tensor v, Tensor segments, float softmax_scale, float softcap, "
      "Tensor? sink, Tensor? seed_out, Tensor? seed_lse, bool partial, bool deterministic=False, "
      "Tensor? lists=None) -> (Tensor out, Tensor lse)");
  m.def(
      "varlen_attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
      "Tensor segments, float softmax_scale, float softcap, Tensor? sink, bool partial, Tensor? delta=None, "
      "bool deterministic=False, Tensor? lists=None) -> (Tensor dq, Tensor dk, Tensor dv, Tensor dsink)");
  m.def(
      "pieces_attention_forward(Tensor q, Tensor[] k, Tensor[] v, Tensor segments, Tensor? ready, int[] epochs, "
      "float softmax_scale, float softcap, Tensor? sink, Tensor? seed_out, Tensor? seed_lse, bool partial, float patience, "
      "Tensor? lists=None) -> (Tensor out, Tensor lse, Tensor late)");
  m.def("attention_delta(Tensor grad_out, Tensor? grad_lse, Tensor out, Tensor lse) -> Tensor");
  m.def("merge_attention(Tensor out_a, Tensor lse_a, Tensor out_b, Tensor lse_b) -> (Tensor out, Tensor lse)");
}
