#include "hetsp/attention/cuda/hopper/backward.h"
#include "hetsp/attention/number.h"
#include "hetsp/base/error.h"

namespace hetsp::attention::cuda::hopper {

template <class Element, int Dim, int Queries>
void launch_backward(const BackwardParams&, const TileList&, std::int32_t*, const BackwardMaps&, void*);  // backward_*.cu

void backward(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, const BackwardMaps& maps,
              void* stream) {
  const Shape& shape = params.shape;
  require(shape.head_dim <= backward_max_dim && shape.head_dim_v <= backward_max_dim, "head_dim ", shape.head_dim,
          ", head_dim_v ", shape.head_dim_v, ": the backward on Hopper takes at most ", backward_max_dim);
  const auto of = [&](auto element) {
    using Element = decltype(element);
    if (backward_tile(shape).dim == 64) return launch_backward<Element, 64, 128>(params, keys, next_item, maps, stream);
    launch_backward<Element, 128, 64>(params, keys, next_item, maps, stream);
  };
  shape.dtype == DType::bfloat16 ? of(BFloat16{}) : of(Float16{});
}

}  // namespace hetsp::attention::cuda::hopper
