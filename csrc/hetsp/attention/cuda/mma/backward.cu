#include "hetsp/attention/cuda/mma/backward.h"

#include "hetsp/attention/cuda/mma/backward.cuh"
#include "hetsp/attention/cuda/mma/launch.cuh"
#include "hetsp/attention/cuda/mma/repair.h"

namespace hetsp::attention::cuda::mma {

namespace {

template <class Element, int Dim, Gradient G>
__global__ void __launch_bounds__(BackwardPlan<Dim, G>::warps* warp_lanes, BackwardPlan<Dim, G>::blocks)
    backward_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList own,
                    const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(128) unsigned char memory[];
  backward_items<Element, Dim, G>(params, own, scratch, *reinterpret_cast<BackwardShared<Dim, G>*>(memory));
}

}  // namespace

void backward(const BackwardParams& params, const TileList& queries, const TileList& keys, std::int32_t* scratch,
              void* stream) {
  const Shape& shape = params.shape;
  select(shape, [&](auto element, auto bucket) {
    using Element = decltype(element);
    constexpr int dim = decltype(bucket)::value;
    int pass = 0;
    const auto run = [&](auto gradient, const TileList& own, std::int64_t rows, std::int64_t heads) {
      constexpr Gradient g = decltype(gradient)::value;
      using Plan = BackwardPlan<dim, g>;
      const Scratch own_scratch = scratch_of_pass(scratch, pass++);
      launch_items("varlen_attention_backward, mma", backward_kernel<Element, dim, g>,
                   most_tiles(rows, params.segment_count) * heads, Plan::warps * warp_lanes, sizeof(BackwardShared<dim, g>),
                   Plan::blocks, stream, params, own, own_scratch);
      (g == Gradient::dq ? repair_dq : repair_dkdv)(params, own, own_scratch, stream);
    };
    run(std::integral_constant<Gradient, Gradient::dq>(), queries, shape.total_q, shape.heads);
    const auto run_keys = [&](auto gradient) { run(gradient, keys, shape.total_k, shape.heads_kv); };
    if constexpr (dim <= 128) {
      run_keys(std::integral_constant<Gradient, Gradient::dk_dv>());
    } else {
      run_keys(std::integral_constant<Gradient, Gradient::dk>());
      run_keys(std::integral_constant<Gradient, Gradient::dv>());
    }
  });
}

}  // namespace hetsp::attention::cuda::mma
