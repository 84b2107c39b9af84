#include "hetsp/attention/cuda/mma/forward.h"

#include "hetsp/attention/cuda/mma/forward.cuh"
#include "hetsp/attention/cuda/mma/launch.cuh"
#include "hetsp/attention/cuda/mma/repair.h"

namespace hetsp::attention::cuda::mma {

namespace {

template <class Element, int Dim, class Plan>
__global__ void __launch_bounds__(Plan::warps* warp_lanes, Plan::blocks)
    forward_kernel(const __grid_constant__ ForwardParams params, const __grid_constant__ TileList queries,
                   const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(128) unsigned char memory[];
  forward_items<Element, Dim>(params, queries, scratch, *reinterpret_cast<ForwardShared<Dim, Plan>*>(memory));
}

}  // namespace

void forward(const ForwardParams& params, const TileList& queries, std::int32_t* scratch, void* stream) {
  const Shape& shape = params.shape;
  const Scratch pass = scratch_of_pass(scratch, 0);
  select(shape, [&](auto element, auto bucket) {
    constexpr int dim = decltype(bucket)::value;
    const auto run = [&](auto plan) {
      using Plan = decltype(plan);
      launch_items("varlen_attention_forward, mma", forward_kernel<decltype(element), dim, Plan>,
                   most_tiles(shape.total_q, params.segment_count) * shape.heads, Plan::warps * warp_lanes,
                   sizeof(ForwardShared<dim, Plan>), Plan::blocks, stream, params, queries, pass);
    };
    if constexpr (dim == 256)
      if (has_shared_memory(sizeof(ForwardShared<dim, WideForwardPlan>))) return run(WideForwardPlan());
    run(ForwardPlan<dim>());
  });
  repair_forward(params, queries, pass, stream);
}

}  // namespace hetsp::attention::cuda::mma
