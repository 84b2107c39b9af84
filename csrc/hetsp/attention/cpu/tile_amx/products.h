// The products of the level amx.
#pragma once

#include "hetsp/attention/cpu/tile_amx/tile_products.h"
#include "hetsp/attention/cpu/tile_amx/tiles.h"

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

using Products = TileProducts<Tiles>;

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
