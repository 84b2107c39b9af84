#include "hetsp/attention/cpu/isa.h"

#include <string>

#include "hetsp/base/amx.h"
#include "hetsp/base/error.h"
#include "support/check.h"

using namespace hetsp::attention::cpu;
using hetsp::attention::BFloat16;
using hetsp::attention::Float16;

TEST(each_isa_has_its_own_functions) {
  for (const Isa a : {Isa::portable, Isa::avx2, Isa::avx512})
    for (const Isa b : {Isa::portable, Isa::avx2, Isa::avx512}) {
      CHECK_EQ(a == b, tile_math<float>(a).forward == tile_math<float>(b).forward);
      CHECK_EQ(a == b, tile_math<double>(a).backward == tile_math<double>(b).backward);
      CHECK_EQ(a == b, tile_math<Float16>(a).element.pack_rows == tile_math<Float16>(b).element.pack_rows);
    }
}

// Dot products of bfloat16 pairs are of use to bfloat16 alone.
TEST(avx512_bf16_is_avx512_for_all_other_types) {
  const Isa pairs = Isa::avx512_bf16, plain = Isa::avx512;
  CHECK(tile_math<float>(pairs).forward == tile_math<float>(plain).forward);
  CHECK(tile_math<double>(pairs).backward == tile_math<double>(plain).backward);
  CHECK(tile_math<Float16>(pairs).element.pack_rows == tile_math<Float16>(plain).element.pack_rows);
  const auto brain = tile_math<BFloat16>(pairs);
  CHECK_EQ(brain.pairs_are_rows, brain.forward == tile_math<BFloat16>(plain).forward);
}

// So is the level of matrix instructions; whoever may not use them gets no table.
TEST(amx_is_avx512_for_all_other_types) {
  const Isa plain = Isa::avx512;
  CHECK(tile_math<float>(Isa::amx).forward == tile_math<float>(plain).forward);
  CHECK(tile_math<double>(Isa::amx).backward == tile_math<double>(plain).backward);
  CHECK(tile_math<Float16>(Isa::amx).element.pack_rows == tile_math<Float16>(plain).element.pack_rows);
  const std::string& refusal = hetsp::amx::refusal();
  if (!refusal.empty()) {
    CHECK_THROWS(hetsp::InvalidArgument, refusal.c_str(), (void)tile_math<BFloat16>(Isa::amx));
    return;
  }
  const auto brain = tile_math<BFloat16>(Isa::amx);
  CHECK_EQ(brain.enter == nullptr, brain.forward == tile_math<BFloat16>(Isa::avx512_bf16).forward);
}

TEST_MAIN()
