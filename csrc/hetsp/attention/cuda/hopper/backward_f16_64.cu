#include "hetsp/attention/cuda/hopper/backward_launch.cuh"

namespace hetsp::attention::cuda::hopper {

template void launch_backward<Float16, 64, 128>(const BackwardParams&, const TileList&, std::int32_t*, const BackwardMaps&,
                                                void*);

}  // namespace hetsp::attention::cuda::hopper
