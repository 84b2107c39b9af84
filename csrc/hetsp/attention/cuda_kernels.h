// The CUDA attention kernels as launches on a stream. Two implementations, chosen by CMake: cuda/ and the stub no_cuda/,
// whose functions throw device::DeviceError with the reason.
//
// All pointers are device memory of the stream's device, which is the current one; `stream` is a cudaStream_t. A call returns
// when its kernels are queued and keeps no pointer to its arguments. Throws InvalidArgument for a size that no kernel takes
// (head dimensions beyond max_head_dim, 2^31 segments or more) and DeviceError where CUDA refuses the launch.
#pragma once

#include <cstdint>

#include "hetsp/attention/cu_seqlens.h"
#include "hetsp/attention/cuda/selection.h"
#include "hetsp/attention/params.h"
#include "hetsp/attention/pieces.h"

namespace hetsp::attention::cuda {

// How a call will be served on the current device: by which kernels, and with how much device scratch, whose contents do not
// matter before and mean nothing after. Asked once, so that scratch and kernels fit each other whatever the process prefers by
// then. Throws InvalidArgument where no kernels serve the call, or none that cuda/selection.h's preference allows.
struct LaunchPlan {
  Family family;
  std::int64_t workspace_bytes;
};
[[nodiscard]] LaunchPlan plan(const ForwardParams& params);
[[nodiscard]] LaunchPlan plan(const PiecesParams& params);
[[nodiscard]] LaunchPlan plan(const BackwardParams& params);

// Fills params.lists for forward and backward.
void build_lists(const ListsParams& params, void* stream);

void forward(const ForwardParams& params, Family family, void* workspace, void* stream);
void forward(const PiecesParams& params, Family family, void* workspace, void* stream);
void backward(const BackwardParams& params, Family family, void* workspace, void* stream);
void delta(const DeltaParams& params, void* stream);
void merge(const MergeParams& params, void* stream);  // params.lse must differ from lse_a and lse_b

// cu_seqlens.h with its arrays and `segments` on the device, where offsets cannot be checked without waiting for it. One that
// lies outside the tensor or below its predecessor is moved to the nearest legal one: such a call gives meaningless numbers
// and touches no foreign memory. max_seqlen_q and max_seqlen_k are not needed and not read.
void cu_seqlens_to_segments(const CuSeqlens& cu_seqlens, Segment* segments, void* stream);

}  // namespace hetsp::attention::cuda
