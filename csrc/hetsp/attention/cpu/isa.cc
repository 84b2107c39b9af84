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

namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::portable};
#if defined(__x86_64__)
  __builtin_cpu_init();  // checks the operating system's saved registers too, not the CPU alone
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(Isa::avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    found.push_back(Isa::avx512);
#endif
  return found;
}

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
  }
  return "unknown";
}

const std::vector<Isa>& supported_isas() {
  static const std::vector<Isa> found = detect();
  return found;
}

Isa best_isa() { return supported_isas().back(); }

template <>
TileMath<float> tile_math<float>(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return portable::float_math;
    case Isa::avx2:
      return avx2::float_math;
    case Isa::avx512:
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
      return avx512::double_math;
  }
  throw BrokenInvariant("unknown instruction set");
}

}  // namespace hetsp::attention::cpu
