// The CUDA table. A build without kernels has it too: its launches say why there are none. Everything is queued on torch's
// current stream of the tensors' device, and nothing here waits for the device.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include "hetsp/attention/cuda_kernels.h"
#include "hetsp/base/error.h"
#include "hetsp/device/device.h"
#include "torch_ops/attention_ops.h"
#include "torch_ops/cuda_stream.h"

namespace hetsp::torch_ops {

namespace {

// Makes `device` the current one for its lifetime and holds the stream that work on it goes to.
class Launching {
 public:
  explicit Launching(int device) : guard_(device) {
    void* stream = nullptr;
    if (!torch_has_cuda() || aoti_torch_get_current_cuda_stream(device, &stream) != AOTI_TORCH_SUCCESS)
      throw device::DeviceError(concat("this torch gives no CUDA stream for device ", device));
    stream_ = stream;
  }
  [[nodiscard]] void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

// Scratch from torch's caching allocator, which may hand it to other work as soon as the tensor dies: work that is queued
// behind ours on the same stream.
Tensor workspace(int64_t bytes, int device) {
  return torch::stable::empty({&bytes, 1}, torch::headeronly::ScalarType::Byte, std::nullopt,
                              torch::stable::Device(torch::headeronly::DeviceType::CUDA, static_cast<int8_t>(device)));
}

void cuda_segments(const attention::CuSeqlens& cu_seqlens, attention::Segment* segments, int device) {
  attention::cuda::cu_seqlens_to_segments(cu_seqlens, segments, Launching(device).stream());
}

void cuda_lists(const attention::ListsParams& params, int device) {
  attention::cuda::build_lists(params, Launching(device).stream());
}

void cuda_forward(const attention::ForwardParams& params, int device) {
  const Launching launching(device);
  const auto [family, bytes] = attention::cuda::plan(params);
  const Tensor scratch = workspace(bytes, device);
  attention::cuda::forward(params, family, scratch.mutable_data_ptr(), launching.stream());
}

void cuda_pieces(const attention::PiecesParams& params, int device) {
  const Launching launching(device);
  const auto [family, bytes] = attention::cuda::plan(params);
  const Tensor scratch = workspace(bytes, device);
  attention::cuda::forward(params, family, scratch.mutable_data_ptr(), launching.stream());
}

void cuda_backward(const attention::BackwardParams& params, int device) {
  const Launching launching(device);
  const auto [family, bytes] = attention::cuda::plan(params);
  const Tensor scratch = workspace(bytes, device);
  attention::cuda::backward(params, family, scratch.mutable_data_ptr(), launching.stream());
}

void cuda_delta(const attention::DeltaParams& params, int device) {
  attention::cuda::delta(params, Launching(device).stream());
}

void cuda_merge(const attention::MergeParams& params, int device) {
  attention::cuda::merge(params, Launching(device).stream());
}

constexpr AttentionLaunch kCuda{cuda_segments, cuda_lists, cuda_forward, cuda_pieces, cuda_backward, cuda_delta, cuda_merge};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(hetsp, CUDA, m) { register_attention<kCuda>(m); }

}  // namespace hetsp::torch_ops
