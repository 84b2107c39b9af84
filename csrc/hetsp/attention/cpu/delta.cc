#include "hetsp/attention/cpu/delta.h"

#include <algorithm>

#include "hetsp/attention/cpu/dispatch.h"
#include "hetsp/base/ceil_div.h"

namespace hetsp::attention::cpu {

void delta(const DeltaParams& params, Parallel& parallel, Isa isa) {
  dispatch(params.dtype, [&](auto element) {
    using Element = decltype(element);
    const Move<Element> move = tile_math<Element>(isa).element;
    const std::int64_t tiles = ceil_div(params.total_q, kTile);
    for_each_item(parallel, tiles * params.heads, [&](std::int64_t item, int) {
      const std::int64_t begin = item / params.heads * kTile;
      delta_of_rows(params, move, {begin, std::min(begin + kTile, params.total_q)}, item % params.heads);
    });
  });
}

}  // namespace hetsp::attention::cpu
