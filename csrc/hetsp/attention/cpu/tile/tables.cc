#include "hetsp/attention/cpu/tile/tables.h"

#include "hetsp/attention/cpu/tile/backward.h"
#include "hetsp/attention/cpu/tile/forward.h"
#include "hetsp/attention/cpu/tile/move.h"
#include "hetsp/attention/cpu/tile/simd.h"

namespace hetsp::attention::cpu::HETSP_ISA {

namespace {

template <class Acc>
std::size_t lanes_bytes(std::int64_t dim) {
  return static_cast<std::size_t>(dim * kTile) * sizeof(Acc);
}
template <class Acc>
std::size_t rows_bytes(std::int64_t dim) {
  return static_cast<std::size_t>(pad(dim) * kTile) * sizeof(Acc);
}
template <class Acc>
std::size_t scratch_bytes() {
  return std::size_t{2} * kTile * kTile * sizeof(Acc);
}

}  // namespace

template <class Element>
TileMath<Element> wide_math() {
  using Acc = typename AccOf<Element>::type;
  return {wide_move<Element>(), wide_move<Acc>(),   true,         lanes_bytes<Acc>,
          rows_bytes<Acc>,      scratch_bytes<Acc>, forward<Acc>, backward<Acc>};
}

template TileMath<float> wide_math();
template TileMath<double> wide_math();
template TileMath<BFloat16> wide_math();
template TileMath<Float16> wide_math();

}  // namespace hetsp::attention::cpu::HETSP_ISA
