// Rows of a tensor on their way into the second-level cache. Short sequences are bound by memory: a head's rows are a few lines
// each, one token apart, which the hardware does not foresee (17 GB/s on Zen 5, where lines in order come at 29). Here all
// heads of a token follow each other.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/params.h"

namespace hetsp::attention::cpu {

// Rows `range` of all heads, `dim` elements each.
inline void prefetch(const ConstView& view, std::size_t element_bytes, RowRange range, std::int64_t heads, std::int64_t dim) {
  constexpr std::int64_t kLine = 64;
  const auto size = static_cast<std::int64_t>(element_bytes);
  const bool side_by_side = view.head_stride == dim;  // then a token is one long row
  const std::int64_t rows = side_by_side ? 1 : heads, bytes = (side_by_side ? heads : 1) * dim * size;
  asm volatile("");  // or the compiler finds that nothing happens here, and drops the call
  for (std::int64_t token = range.begin; token < range.end; ++token)
    for (std::int64_t head = 0; head < rows; ++head) {
      const auto* row = static_cast<const char*>(view.data) + (token * view.token_stride + head * view.head_stride) * size;
      for (std::int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(row + at, 0, 2);
    }
}

}  // namespace hetsp::attention::cpu
