#include "hetsp/attention/cpu/tile_bf16/table.h"

#include "hetsp/attention/cpu/tile/simd.h"
#include "hetsp/attention/cpu/tile_bf16/backward.h"
#include "hetsp/attention/cpu/tile_bf16/forward.h"
#include "hetsp/attention/cpu/tile_bf16/grain.h"
#include "hetsp/attention/cpu/tile_bf16/move.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

std::size_t lanes_bytes(std::int64_t dim) {
  return static_cast<std::size_t>(grain_end(dim) / 2 * kTile) * sizeof(std::uint32_t);
}
std::size_t rows_bytes(std::int64_t dim) { return static_cast<std::size_t>(row_step(dim) * kTile) * sizeof(std::uint16_t); }
std::size_t scratch_bytes() {
  const std::size_t forward_bytes = forward_scratch_bytes(), backward_bytes = backward_scratch_bytes();
  return forward_bytes > backward_bytes ? forward_bytes : backward_bytes;
}

}  // namespace

TileMath<BFloat16> pair_math() {
  return {pair_move<BFloat16>(), pair_move<float>(), false, lanes_bytes, rows_bytes, scratch_bytes, forward, backward,
          Products::enter,       Products::leave};
}

}  // namespace hetsp::attention::cpu::HETSP_ISA
