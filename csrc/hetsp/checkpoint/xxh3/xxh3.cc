#include "hetsp/checkpoint/xxh3.h"

#include "hetsp/base/error.h"
#include "hetsp/checkpoint/xxh3/xxh3_isa.h"

namespace hetsp::checkpoint {

const Xxh3* xxh3(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return &portable::functions;
    case Isa::avx2:
      return &avx2::functions;
    case Isa::avx512:
    case Isa::avx512_bf16:
    case Isa::amx:
      return &avx512::functions;
  }
  throw BrokenInvariant("unknown instruction set");
}

}  // namespace hetsp::checkpoint
