// The schemas of every op of torch.ops.hetsp, in one place. Each implementation registers itself in its own file; fake,
// autograd and autocast are Python (hetsp_ext/attention).
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(hetsp, m) { m.def("cuda_info() -> int[]"); }
