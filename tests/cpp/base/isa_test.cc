#include "hetsp/base/isa.h"

#include <cstdio>

#include "support/check.h"

using namespace hetsp;

TEST(portable_is_always_there_and_first) {
  CHECK(!supported_isas().empty());
  CHECK(supported_isas().front() == Isa::portable);
  CHECK(best_isa() == supported_isas().back());
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512}) {
    bool here = false;
    for (const Isa found : supported_isas()) here |= found == isa;
    if (!here) std::printf("note: this machine lacks %s, so no test runs it\n", name(isa));
  }
}

TEST_MAIN()
