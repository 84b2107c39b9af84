#include "hetsp/attention/cpu/isa.h"

#include <type_traits>

#include "hetsp/base/error.h"

namespace hetsp::attention::cpu {

#define HETSP_DECLARE(isa)       \
  namespace isa {                \
  template <class Element>       \
  TileMath<Element> wide_math(); \
  }
HETSP_DECLARE(portable)
HETSP_DECLARE(avx2)
HETSP_DECLARE(avx512)
#undef HETSP_DECLARE
namespace avx512_bf16 {
TileMath<BFloat16> pair_math();
}
namespace amx {
TileMath<BFloat16> pair_math();
}

template <class Element>
TileMath<Element> tile_math(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return portable::wide_math<Element>();
    case Isa::avx2:
      return avx2::wide_math<Element>();
    case Isa::amx:
      if constexpr (std::is_same_v<Element, BFloat16>) {
        permit(isa);
        return amx::pair_math();
      }
      return avx512::wide_math<Element>();
    case Isa::avx512_bf16:
      if constexpr (std::is_same_v<Element, BFloat16>) return avx512_bf16::pair_math();
      return avx512::wide_math<Element>();
    case Isa::avx512:
      return avx512::wide_math<Element>();
  }
  throw BrokenInvariant("unknown instruction set");
}

template TileMath<float> tile_math(Isa isa);
template TileMath<double> tile_math(Isa isa);
template TileMath<BFloat16> tile_math(Isa isa);
template TileMath<Float16> tile_math(Isa isa);

}  // namespace hetsp::attention::cpu
