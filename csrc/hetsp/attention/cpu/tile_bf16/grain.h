// Lengths in units of what a level's products sum at once.
#pragma once

#include "hetsp/attention/cpu/tile/simd.h"
#include HETSP_PAIR_PRODUCTS

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

constexpr std::int64_t kGrain = 2 * Products::kGrain;  // numbers

constexpr std::int64_t grain_begin(std::int64_t at) { return at / kGrain * kGrain; }
constexpr std::int64_t grain_end(std::int64_t at) { return grain_begin(at + kGrain - 1); }

// Numbers from row to row in rows form.
constexpr std::int64_t row_step(std::int64_t dim) { return kGrain > kLanes ? grain_end(dim) : pad(dim); }

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
