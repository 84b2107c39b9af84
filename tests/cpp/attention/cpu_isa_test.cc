#include "hetsp/attention/cpu/isa.h"

#include "support/check.h"

using namespace hetsp::attention::cpu;
using hetsp::attention::Float16;

TEST(each_isa_has_its_own_functions) {
  for (const Isa a : {Isa::portable, Isa::avx2, Isa::avx512})
    for (const Isa b : {Isa::portable, Isa::avx2, Isa::avx512}) {
      CHECK_EQ(a == b, tile_math<float>(a).forward == tile_math<float>(b).forward);
      CHECK_EQ(a == b, tile_math<double>(a).backward == tile_math<double>(b).backward);
      CHECK_EQ(a == b, tile_math<Float16>(a).element.pack_rows == tile_math<Float16>(b).element.pack_rows);
    }
}

TEST_MAIN()
