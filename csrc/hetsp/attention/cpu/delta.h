// D of the backward, D_i = dout_i . out_i - dlse_i, for any number of rows (DeltaParams).
#pragma once

#include <cstdint>
#include <limits>

#include "hetsp/attention/cpu/isa.h"
#include "hetsp/attention/cpu/pack.h"
#include "hetsp/attention/params.h"
#include "hetsp/base/parallel.h"

namespace hetsp::attention::cpu {

void delta(const DeltaParams& params, Parallel& parallel, Isa isa = active_isa());

// The same of the rows of `range` (at most kTile), one head. T: the type of out and dout.
template <class T>
void delta_of_rows(const DeltaParams& params, const Move<T>& move, RowRange range, std::int64_t head) {
  using Acc = typename AccOf<T>::type;
  const std::int64_t rows = range.end - range.begin, at = head * params.total_q + range.begin;
  auto* delta = static_cast<Acc*>(params.delta) + at;
  move.delta(row<T>(params.out, range.begin, head), params.out.token_stride, row<T>(params.dout, range.begin, head),
             params.dout.token_stride, rows, params.head_dim_v, delta);
  if (params.dlse == nullptr) return;
  const auto *lse = static_cast<const Acc*>(params.lse) + at, *dlse = static_cast<const Acc*>(params.dlse) + at;
  for (std::int64_t i = 0; i < rows; ++i)
    if (lse[i] != -std::numeric_limits<Acc>::infinity()) delta[i] -= dlse[i];
}

}  // namespace hetsp::attention::cpu
