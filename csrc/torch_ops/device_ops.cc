#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <vector>

#include "hetsp/device/device.h"
#include "torch_ops/cuda_stream.h"

namespace {

// [kernels compiled, torch has CUDA, devices]: what `hetsp doctor` needs to say why CUDA is absent.
std::vector<int64_t> cuda_info() {
  return {hetsp::device::cuda_compiled(), hetsp::torch_ops::torch_has_cuda(), hetsp::device::cuda_device_count()};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(hetsp, CompositeExplicitAutograd, m) { m.impl("cuda_info", TORCH_BOX(&cuda_info)); }
