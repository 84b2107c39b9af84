// The scalar kernels as launches on a stream: any type, any stride, head dimensions up to 256; forward.cuh and backward.cuh
// say how. `workspace`: scalar_workspace_bytes of device memory.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/chain.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda {

[[nodiscard]] std::int64_t scalar_workspace_bytes(const Shape& shape);

void scalar_forward(const ForwardParams& params, void* workspace, void* stream);

// The chain of `params`; its segments before they were cut make the index.
void scalar_forward_chain(const PiecesParams& params, const Chain& chain, void* workspace, void* stream);

// dq, dk and dv from final delta, lse, q, k, v and dout.
void scalar_backward(const BackwardParams& params, void* workspace, void* stream);

// The gradient of the sinks from delta and lse; for any family.
void sink_gradient(const BackwardParams& params, void* stream);

}  // namespace hetsp::attention::cuda
