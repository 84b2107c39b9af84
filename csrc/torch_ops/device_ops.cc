#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <string>
#include <vector>

#include "hetsp/base/isa.h"
#include "hetsp/device/device.h"
#include "torch_ops/at_edge.h"
#include "torch_ops/cuda_stream.h"

namespace {

// [kernels compiled, torch has CUDA, devices]: what `hetsp doctor` needs to say why CUDA is absent.
std::vector<int64_t> cuda_info() {
  return {hetsp::device::cuda_compiled(), hetsp::torch_ops::torch_has_cuda(), hetsp::device::cuda_device_count()};
}

// The instruction set of the ops from now on (none: the best), by name; returns the one in use. The core that the ops hold is
// not the one of the bindings, so hetsp_ext.capability tells both.
std::string force_cpu_capability(std::optional<std::string> wanted) {
  return hetsp::torch_ops::at_edge([&] {
    hetsp::force_isa(wanted ? std::optional(hetsp::supported_isa(*wanted)) : std::nullopt);
    return std::string(hetsp::name(hetsp::active_isa()));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(hetsp, CompositeExplicitAutograd, m) {
  m.impl("cuda_info", TORCH_BOX(&cuda_info));
  m.impl("force_cpu_capability", TORCH_BOX(&force_cpu_capability));
}
