#include "hetsp/attention/cuda/mma/repair.h"

#include "hetsp/attention/cuda/mma/launch.cuh"
#include "hetsp/attention/cuda/mma/repair.cuh"

namespace hetsp::attention::cuda::mma {

namespace {

constexpr int dim = max_head_dim;  // one bucket for all: what is rare may be slow, and is compiled once

__global__ void __launch_bounds__(block_threads)
    repair_forward_kernel(const __grid_constant__ ForwardParams params, const __grid_constant__ TileList queries,
                          const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(16) unsigned char memory[];
  repair_forward_items(params, queries, scratch, *reinterpret_cast<RepairForwardShared<dim>*>(memory));
}

__global__ void __launch_bounds__(block_threads)
    repair_dq_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList queries,
                     const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(16) unsigned char memory[];
  repair_dq_items(params, queries, scratch, *reinterpret_cast<RepairBackwardShared<dim>*>(memory));
}

__global__ void __launch_bounds__(block_threads)
    repair_dkdv_kernel(const __grid_constant__ BackwardParams params, const __grid_constant__ TileList keys,
                       const __grid_constant__ Scratch scratch) {
  extern __shared__ __align__(16) unsigned char memory[];
  repair_dkdv_items(params, keys, scratch, *reinterpret_cast<RepairBackwardShared<dim>*>(memory));
}

template <class Kernel, class Params>
void launch_repair(const char* name, Kernel* kernel, std::size_t shared_bytes, const Params& params, const TileList& list,
                   const Scratch& scratch, void* stream) {
  launch_items(name, kernel, multiprocessors(), block_threads, shared_bytes, 1, stream, params, list, scratch);
}

}  // namespace

void repair_forward(const ForwardParams& params, const TileList& queries, const Scratch& scratch, void* stream) {
  launch_repair("varlen_attention_forward, repair", repair_forward_kernel, sizeof(RepairForwardShared<dim>), params, queries,
                scratch, stream);
}

void repair_dq(const BackwardParams& params, const TileList& queries, const Scratch& scratch, void* stream) {
  launch_repair("varlen_attention_backward, repair of dq", repair_dq_kernel, sizeof(RepairBackwardShared<dim>), params, queries,
                scratch, stream);
}

void repair_dkdv(const BackwardParams& params, const TileList& keys, const Scratch& scratch, void* stream) {
  launch_repair("varlen_attention_backward, repair of dk and dv", repair_dkdv_kernel, sizeof(RepairBackwardShared<dim>), params,
                keys, scratch, stream);
}

}  // namespace hetsp::attention::cuda::mma
