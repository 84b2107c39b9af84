// torch's current CUDA stream through a symbol that exists in CUDA builds of torch only: weak, so that the same binary
// loads in a CPU build.
#pragma once

#include <torch/csrc/stable/library.h>

extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace hetsp::torch_ops {

inline bool torch_has_cuda() { return aoti_torch_get_current_cuda_stream != nullptr; }

}  // namespace hetsp::torch_ops
