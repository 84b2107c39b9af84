#include "hetsp/attention/cuda_kernels.h"

#include "hetsp/base/error.h"
#include "hetsp/device/device.h"

namespace hetsp::attention::cuda {

namespace {

[[noreturn]] void absent() { throw device::DeviceError(concat("attention on CUDA is absent: ", device::cuda_absent_why())); }

}  // namespace

LaunchPlan plan(const ForwardParams&) { absent(); }
LaunchPlan plan(const PiecesParams&) { absent(); }
LaunchPlan plan(const BackwardParams&) { absent(); }
void build_lists(const ListsParams&, void*) { absent(); }
void forward(const ForwardParams&, Family, void*, void*) { absent(); }
void forward(const PiecesParams&, Family, void*, void*) { absent(); }
void backward(const BackwardParams&, Family, void*, void*) { absent(); }
void delta(const DeltaParams&, void*) { absent(); }
void merge(const MergeParams&, void*) { absent(); }
void cu_seqlens_to_segments(const CuSeqlens&, Segment*, void*) { absent(); }

}  // namespace hetsp::attention::cuda
