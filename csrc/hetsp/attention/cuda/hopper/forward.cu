#include "hetsp/attention/cuda/hopper/forward.h"

#include "hetsp/attention/cuda/hopper/forward_launch.cuh"

namespace hetsp::attention::cuda::hopper {

namespace {

template <class Element>
void launch_bucket(const ForwardArguments& arguments, void* stream) {
  switch (forward_tile(arguments.params.shape).dim) {
    case 64:
      return launch_forward<ForwardConfig<Element, 64, 64, 128>>(arguments, stream);
    case 128:
      return launch_forward<ForwardConfig<Element, 128, 128, 128>>(arguments, stream);
    case 192:
      return launch_forward<ForwardConfig<Element, 192, 128, 128>>(arguments, stream);
    default:
      return launch_forward<ForwardConfig<Element, 256, 256, 80>>(arguments, stream);
  }
}

}  // namespace

void forward(const ForwardParams& params, const TileList& queries, std::int32_t* next_item, const ForwardMaps& maps,
             void* stream) {
  if (params.shape.total_q == 0) return;
  const ForwardArguments arguments{maps, params, queries, next_item};
  if (params.shape.dtype == DType::bfloat16) return launch_bucket<BFloat16>(arguments, stream);
  launch_bucket<Float16>(arguments, stream);
}

}  // namespace hetsp::attention::cuda::hopper
