// The CUDA attention kernels as launches on a stream. Two implementations, chosen by CMake: cuda/ and the stub no_cuda/,
// whose functions throw device::DeviceError with the reason.
//
// All pointers are device memory of the stream's device, which is the current one; `stream` is a cudaStream_t. A call returns
// when its kernels are queued and keeps no pointer to its arguments. Throws InvalidArgument for a size that no kernel takes
// (head dimensions beyond max_head_dim, 2^31 segments or more) and DeviceError where CUDA refuses the launch.
#pragma once

#include <cstdint>

#include "hetsp/attention/cu_seqlens.h"
#include "hetsp/attention/params.h"

namespace hetsp::attention::cuda {

constexpr std::int64_t max_head_dim = 256;

// Bytes of device scratch that forward and backward want; its contents do not matter before, and mean nothing after.
[[nodiscard]] std::int64_t workspace_bytes(const Shape& shape);

void forward(const ForwardParams& params, void* workspace, void* stream);
void backward(const BackwardParams& params, void* workspace, void* stream);
void delta(const DeltaParams& params, void* stream);
void merge(const MergeParams& params, void* stream);  // params.lse must differ from lse_a and lse_b

// cu_seqlens.h with its arrays and `segments` on the device, where offsets cannot be checked without waiting for it. One that
// lies outside the tensor or below its predecessor is moved to the nearest legal one: such a call gives meaningless numbers
// and touches no foreign memory. max_seqlen_q and max_seqlen_k are not needed and not read.
void cu_seqlens_to_segments(const CuSeqlens& cu_seqlens, Segment* segments, void* stream);

}  // namespace hetsp::attention::cuda
