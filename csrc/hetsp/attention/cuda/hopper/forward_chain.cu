#include "hetsp/attention/cuda/hopper/forward_chain.h"

#include <algorithm>
#include <iterator>

#include "hetsp/attention/cuda/hopper/forward_chain.cuh"
#include "hetsp/attention/cuda/hopper/item_order.h"
#include "hetsp/attention/cuda/launch.cuh"

namespace hetsp::attention::cuda::hopper {

namespace {

template <class Config>
__global__ void __launch_bounds__(forward_threads, 1) forward_chain_kernel(const __grid_constant__ ChainArguments arguments) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ __align__(1024) unsigned char hopper_chain_memory[];
  forward_block(arguments, *reinterpret_cast<ForwardShared<Config>*>(hopper_chain_memory));
#endif
}

// One block a multiprocessor: each takes work until there is none.
template <class Config>
void launch_chain(const ChainArguments& arguments, void* stream) {
  int device = 0, blocks = 0;
  check(cudaGetDevice(&device), "pieces_attention_forward");
  check(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, device), "pieces_attention_forward");
  launch_blocks_of(forward_threads, "pieces_attention_forward, hopper", forward_chain_kernel<Config>, blocks,
                   sizeof(ForwardShared<Config>), stream, arguments);
}

template <class Element, bool Squashed>
void launch_bucket(const ChainArguments& arguments, void* stream) {
  switch (forward_tile(arguments.params.shape).dim) {
    case 64:
      return launch_chain<ChainConfig<Element, 64, Squashed>>(arguments, stream);
    case 128:
      return launch_chain<ChainConfig<Element, 128, Squashed>>(arguments, stream);
    case 192:
      return launch_chain<ChainConfig<Element, 192, Squashed>>(arguments, stream);
    default:
      return launch_chain<ChainConfig<Element, 256, Squashed>>(arguments, stream);
  }
}

template <class Element>
void launch_element(const ChainArguments& arguments, void* stream) {
  if (arguments.factors.squashed) return launch_bucket<Element, true>(arguments, stream);
  launch_bucket<Element, false>(arguments, stream);
}

}  // namespace

void forward_chain(const ForwardParams& params, const Chain& chain, const TileList& queries, std::int32_t* next_item,
                   const ChainMaps& maps, void* stream) {
  if (params.shape.total_q == 0) return;
  const Shape& shape = params.shape;
  std::int64_t longest = 0;  // piece: what the tiles of a link read together
  for (int i = 0; i < chain.count; ++i) longest = std::max(longest, chain.link[i].shape.total_k);
  const std::int64_t bytes = longest * (shape.head_dim + shape.head_dim_v) * 2;
  ChainArguments arguments{};
  arguments.maps.q = maps.q;
  std::copy(std::begin(maps.k), std::end(maps.k), arguments.k);
  std::copy(std::begin(maps.v), std::end(maps.v), arguments.v);
  arguments.params = chain.link[0], arguments.factors = score_factors(params.score);
  arguments.queries = queries, arguments.next_item = next_item;
  arguments.together = heads_together(bytes, shape.heads, shape.heads_kv);
  arguments.chain = chain;
  if (shape.dtype == DType::bfloat16) return launch_element<BFloat16>(arguments, stream);
  launch_element<Float16>(arguments, stream);
}

}  // namespace hetsp::attention::cuda::hopper
