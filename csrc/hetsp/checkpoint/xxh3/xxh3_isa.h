// The functions of each instruction set that xxh3_isa.cc is compiled for.
#pragma once

#include "hetsp/checkpoint/xxh3.h"

#define HETSP_DECLARE(isa)      \
  namespace hetsp::checkpoint { \
  namespace isa {               \
  extern const Xxh3 functions;  \
  }                             \
  }
HETSP_DECLARE(portable)
HETSP_DECLARE(avx2)
HETSP_DECLARE(avx512)
#undef HETSP_DECLARE
