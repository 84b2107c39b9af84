// The warp of the forward that stands between the copy engine and the consumers of V: rows behind the segment's end belong to
// others, hold anything, and 0 * NaN is NaN. It zeroes them before it passes the tile on, and so no consumer waits for another.
#pragma once

#include <cstdint>

#include "hetsp/attention/cuda/hopper/forward_state.cuh"

namespace hetsp::attention::cuda::hopper {

template <class Config>
class ForwardSweeper {
 public:
  HETSP_INLINE explicit ForwardSweeper(ForwardShared<Config>& shared) : shared_(shared) {}

  // One warp.
  HETSP_INLINE void run() {
#pragma unroll 1
    for (;; v_.next()) {
      wait(shared_.v_here[v_.stage], v_.parity);
      const std::int32_t from = shared_.sweep_from[v_.stage];
      if (from < 0) return;
      if (from < Config::keys) sweep(shared_.v[v_.stage], from);
      __syncwarp();
      if (lane_index() == 0) arrive(shared_.v_full[v_.stage]);
    }
  }

 private:
  using VTile = typename Config::VTile;

  HETSP_INLINE static void sweep(unsigned char* tile, std::int32_t from) {
#pragma unroll 1
    for (int panel = 0; panel < VTile::panels; ++panel)
#pragma unroll 1
      for (int place = from * 128 + 16 * lane_index(); place < VTile::panel_bytes; place += 16 * 32)
        *reinterpret_cast<Words4*>(tile + panel * VTile::panel_bytes + place) = {{0, 0, 0, 0}};
    fence_async_proxy();
  }

  ForwardShared<Config>& shared_;
  Turn<Config::stages> v_;
};

}  // namespace hetsp::attention::cuda::hopper
