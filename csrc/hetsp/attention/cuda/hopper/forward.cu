#include "hetsp/attention/cuda/hopper/forward.h"

#include "hetsp/attention/cuda/hopper/forward_launch.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"

namespace hetsp::attention::cuda::hopper {

namespace {

template <class Element, bool Squashed>
void launch_bucket(const ForwardArguments& arguments, void* stream) {
  switch (forward_tile(arguments.params.shape).dim) {
    case 64:
      return launch_forward<ForwardConfig<Element, 64, Squashed>>(arguments, stream);
    case 128:
      return launch_forward<ForwardConfig<Element, 128, Squashed>>(arguments, stream);
    case 192:
      return launch_forward<ForwardConfig<Element, 192, Squashed>>(arguments, stream);
    default:
      return launch_forward<ForwardConfig<Element, 256, Squashed>>(arguments, stream);
  }
}

template <class Element>
void launch_element(const ForwardArguments& arguments, void* stream) {
  if (arguments.factors.squashed) return launch_bucket<Element, true>(arguments, stream);
  launch_bucket<Element, false>(arguments, stream);
}

}  // namespace

void forward(const ForwardParams& params, const TileList& queries, std::int32_t* next_item, const ForwardMaps& maps,
             void* stream) {
  if (params.shape.total_q == 0) return;
  const Shape& shape = params.shape;
  const std::int64_t bytes = shape.total_k * (shape.head_dim + shape.head_dim_v) * 2;
  const ForwardArguments arguments{maps,    params,    score_factors(params.score),
                                   queries, next_item, heads_together(bytes, shape.heads, shape.heads_kv)};
  if (params.shape.dtype == DType::bfloat16) return launch_element<BFloat16>(arguments, stream);
  launch_element<Float16>(arguments, stream);
}

}  // namespace hetsp::attention::cuda::hopper
