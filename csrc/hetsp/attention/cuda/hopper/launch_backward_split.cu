#include "hetsp/attention/cuda/hopper/backward_split.h"
#include "hetsp/attention/cuda/hopper/item_order.h"
#include "hetsp/attention/number.h"

namespace hetsp::attention::cuda::hopper {

template <class Element, int Dim>  // backward_split_*.cu
void launch_split_keys(const BackwardParams&, const TileList&, std::int32_t*, std::int32_t, const SplitMaps&, void*);
template <class Element, int Dim>
void launch_split_queries(const BackwardParams&, const TileList&, std::int32_t*, std::int32_t, const SplitMaps&, void*);

void split_key_gradients(const BackwardParams& params, const TileList& keys, std::int32_t* next_item, const SplitMaps& maps,
                         void* stream) {
  const Shape& shape = params.shape;
  const std::int64_t bytes = shape.total_q * (shape.head_dim + shape.head_dim_v) * 2 * (shape.heads / shape.heads_kv);
  const std::int32_t together = heads_together(bytes, shape.heads_kv, shape.heads_kv);
  const auto of = [&](auto element) {
    using Element = decltype(element);
    switch (split_tile(shape).dim) {
      case 128:
        return launch_split_keys<Element, 128>(params, keys, next_item, together, maps, stream);
      case 192:
        return launch_split_keys<Element, 192>(params, keys, next_item, together, maps, stream);
      default:
        return launch_split_keys<Element, 256>(params, keys, next_item, together, maps, stream);
    }
  };
  shape.dtype == DType::bfloat16 ? of(BFloat16{}) : of(Float16{});
}

void split_query_gradients(const BackwardParams& params, const TileList& queries, std::int32_t* next_item,
                           const SplitMaps& maps, void* stream) {
  const Shape& shape = params.shape;
  const std::int64_t bytes = shape.total_k * (shape.head_dim + shape.head_dim_v) * 2;
  const std::int32_t together = heads_together(bytes, shape.heads, shape.heads_kv);
  const auto of = [&](auto element) {
    using Element = decltype(element);
    switch (split_tile(shape).dim) {
      case 128:
        return launch_split_queries<Element, 128>(params, queries, next_item, together, maps, stream);
      case 192:
        return launch_split_queries<Element, 192>(params, queries, next_item, together, maps, stream);
      default:
        return launch_split_queries<Element, 256>(params, queries, next_item, together, maps, stream);
    }
  };
  shape.dtype == DType::bfloat16 ? of(BFloat16{}) : of(Float16{});
}

}  // namespace hetsp::attention::cuda::hopper
