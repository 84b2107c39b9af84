#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <optional>
#include <string>
#include <vector>

#include "hetsp/attention/cuda/selection.h"
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

// The best family of attention kernels that calls on CUDA may take; returned by name.
std::string cuda_kernels() { return hetsp::attention::cuda::name(hetsp::attention::cuda::preference().most); }

// Bounds it (none: not at all) and returns it.
std::string set_cuda_kernels(std::optional<std::string> most, bool only) {
  return hetsp::torch_ops::at_edge([&] {
    hetsp::attention::cuda::Preference wish{};
    if (most) wish = {hetsp::attention::cuda::family_of(*most), only};
    hetsp::attention::cuda::prefer(wish);
    return cuda_kernels();
  });
}

// The best that a device of this compute capability, 10 * major + minor, can run.
std::string cuda_kernels_of(int64_t capability) {
  return hetsp::attention::cuda::name(hetsp::attention::cuda::best_family(static_cast<int>(capability)));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(hetsp, CompositeExplicitAutograd, m) {
  m.impl("cuda_info", TORCH_BOX(&cuda_info));
  m.impl("force_cpu_capability", TORCH_BOX(&force_cpu_capability));
  m.impl("set_cuda_kernels", TORCH_BOX(&set_cuda_kernels));
  m.impl("cuda_kernels", TORCH_BOX(&cuda_kernels));
  m.impl("cuda_kernels_of", TORCH_BOX(&cuda_kernels_of));
}
