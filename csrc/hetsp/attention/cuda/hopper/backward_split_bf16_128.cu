#include "hetsp/attention/cuda/hopper/backward_split_launch.cuh"

namespace hetsp::attention::cuda::hopper {

template void launch_split_keys<BFloat16, 128>(const BackwardParams&, const TileList&, std::int32_t*, std::int32_t,
                                               const SplitMaps&, void*);
template void launch_split_queries<BFloat16, 128>(const BackwardParams&, const TileList&, std::int32_t*, std::int32_t,
                                                  const SplitMaps&, void*);

}  // namespace hetsp::attention::cuda::hopper
