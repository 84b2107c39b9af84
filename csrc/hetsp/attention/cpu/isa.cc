#include "hetsp/attention/cpu/isa.h"

#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

#define HETSP_DECLARE(isa)                   \
  namespace isa {                            \
  extern const TileMath<float> float_math;   \
  extern const TileMath<double> double_math; \
  }
HETSP_DECLARE(portable)
HETSP_DECLARE(avx2)
HETSP_DECLARE(avx512)
#undef HETSP_DECLARE

template <>
TileMath<float> tile_math<float>(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return portable::float_math;
    case Isa::avx2:
      return avx2::float_math;
    case Isa::avx512:
    case Isa::avx512_bf16:
      return avx512::float_math;
  }
  throw BrokenInvariant("unknown instruction set");
}

template <>
TileMath<double> tile_math<double>(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return portable::double_math;
    case Isa::avx2:
      return avx2::double_math;
    case Isa::avx512:
    case Isa::avx512_bf16:
      return avx512::double_math;
  }
  throw BrokenInvariant("unknown instruction set");
}

}  // namespace hetsp::attention::cpu
