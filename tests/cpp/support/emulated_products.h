// The products of the level amx on emulated tiles: HETSP_PAIR_PRODUCTS of the table amx_emulated.
#pragma once

#include "hetsp/attention/cpu/tile_amx/tile_products.h"
#include "support/amx_emulator.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

// The operand of LDTILECFG of tile_amx/tiles.h is tested where its instructions are: here the emulator's own registers serve.
struct EmulatedTiles {
  static void configure() {
    unsigned char config[64] = {1};
    for (int t = 0; t < 8; ++t) config[16 + 2 * t] = 64, config[48 + t] = 16;
    amx_emulator::this_thread().configure(config);
  }
  static void release() { amx_emulator::this_thread().release(); }
  template <int t>
  static void zero() {
    amx_emulator::this_thread().zero(t);
  }
  template <int t>
  static void load(const void* from, std::int64_t step) {
    amx_emulator::this_thread().load(t, from, step);
  }
  template <int t>
  static void store(void* to, std::int64_t step) {
    amx_emulator::this_thread().store(t, to, step);
  }
  template <int c, int a, int b>
  static void dot() {
    amx_emulator::this_thread().dot(c, a, b);
  }
};

using Products = TileProducts<EmulatedTiles>;

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
