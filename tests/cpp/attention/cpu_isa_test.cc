#include "hetsp/attention/cpu/isa.h"

#include "support/check.h"

using namespace hetsp::attention::cpu;

TEST(each_isa_has_its_own_functions) {
  for (const Isa a : {Isa::portable, Isa::avx2, Isa::avx512})
    for (const Isa b : {Isa::portable, Isa::avx2, Isa::avx512}) {
      CHECK_EQ(a == b, tile_math<float>(a).forward == tile_math<float>(b).forward);
      CHECK_EQ(a == b, tile_math<double>(a).backward == tile_math<double>(b).backward);
    }
}

TEST_MAIN()
