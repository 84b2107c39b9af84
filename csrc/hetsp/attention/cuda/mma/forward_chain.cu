#include "hetsp/attention/cuda/mma/forward_chain.cuh"

#include "hetsp/attention/cuda/mma/forward_chain.h"
#include "hetsp/attention/cuda/mma/launch.cuh"

namespace hetsp::attention::cuda::mma {

namespace {

template <class Element, int Dim, class Plan>
__global__ void __launch_bounds__(Plan::warps* warp_lanes, Plan::blocks)
    forward_chain_kernel(const __grid_constant__ Chain chain, const __grid_constant__ TileList queries,
                         const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(128) unsigned char memory[];
  forward_chain_items<Element, Dim>(chain, queries, scratch, *reinterpret_cast<ForwardChainShared<Dim, Plan>*>(memory));
}

constexpr int repair_dim = max_head_dim;  // one bucket for all: what is rare may be slow, and is compiled once

__global__ void __launch_bounds__(block_threads)
    repair_chain_kernel(const __grid_constant__ Chain chain, const __grid_constant__ TileList queries,
                        const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(16) unsigned char repair_memory[];
  repair_chain_items(chain, queries, scratch, *reinterpret_cast<RepairChainShared<repair_dim>*>(repair_memory));
}

}  // namespace

void forward_chain(const Chain& chain, const TileList& queries, std::int64_t most_items, std::int32_t* scratch, void* stream) {
  const Scratch pass = scratch_of_pass(scratch, 0);
  select(chain.link[0].shape, [&](auto element, auto bucket) {
    constexpr int dim = decltype(bucket)::value;
    const auto run = [&](auto plan) {
      using Plan = decltype(plan);
      launch_items("pieces_attention_forward, mma", forward_chain_kernel<decltype(element), dim, Plan>, most_items,
                   Plan::warps * warp_lanes, sizeof(ForwardChainShared<dim, Plan>), Plan::blocks, stream, chain, queries, pass);
    };
    if constexpr (dim == 256)
      if (has_shared_memory(sizeof(ForwardChainShared<dim, WideForwardPlan>))) return run(WideForwardPlan());
    run(ForwardPlan<dim>());
  });
  launch_items("pieces_attention_forward, repair", repair_chain_kernel, multiprocessors(), block_threads,
               sizeof(RepairChainShared<repair_dim>), 1, stream, chain, queries, pass);
}

}  // namespace hetsp::attention::cuda::mma
