// Eight registers of 16 rows of 64 bytes, and what AMX-BF16 does with them. tests/cpp/support/emulated_products.h has the same
// functions without AMX.
//
// In assembler text, because the intrinsics of gcc 12 do not tell the compiler that they read and write memory: a store of
// what a tile loads next may then be moved behind the load. A tile register cannot be spilled, for the compiler knows none.
#pragma once

#include <cstdint>

namespace hetsp::attention::cpu::HETSP_ISA {
namespace {

// The operand of LDTILECFG: every register has all its 16 rows of 64 bytes.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);

struct Tiles {
  static void configure() {
    static constexpr TileConfig config;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  // To the initial state, of which a context switch saves nothing.
  static void release() { asm volatile("tilerelease" ::: "memory"); }

  template <int t>
  [[gnu::always_inline]] static void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(t));
  }
  // 16 rows, `step` bytes apart.
  template <int t>
  [[gnu::always_inline]] static void load(const void* from, std::int64_t step) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(t) : "memory");
  }
  template <int t>
  [[gnu::always_inline]] static void store(void* to, std::int64_t step) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(step), "i"(t) : "memory");
  }
  // c[m][n] += sum over the pairs k of a[m][k] . b[k][n]
  template <int c, int a, int b>
  [[gnu::always_inline]] static void dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
  }
};

}  // namespace
}  // namespace hetsp::attention::cpu::HETSP_ISA
