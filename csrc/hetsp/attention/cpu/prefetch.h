// Rows of a tensor on their way into the second-level cache. Short sequences are bound by memory: a head's rows are a few lines
// each, one token apart, which the hardware does not foresee.
#pragma once

#include <cstddef>
#include <cstdint>

#include "hetsp/attention/params.h"

namespace hetsp::attention::cpu {

constexpr std::int64_t kCacheLine = 64;

// Calls body(const char*) for each line of rows `range` of all heads, `dim` elements each, in the order of their addresses.
template <class Body>
void for_each_line(const ConstView& view, std::size_t element_bytes, RowRange range, std::int64_t heads, std::int64_t dim,
                   const Body& body) {
  const auto size = static_cast<std::int64_t>(element_bytes);
  const bool side_by_side = view.head_stride == dim;  // then a token is one long row
  const std::int64_t rows = side_by_side ? 1 : heads, bytes = (side_by_side ? heads : 1) * dim * size;
  for (std::int64_t token = range.begin; token < range.end; ++token)
    for (std::int64_t head = 0; head < rows; ++head) {
      const auto* row = static_cast<const char*>(view.data) + (token * view.token_stride + head * view.head_stride) * size;
      for (std::int64_t at = 0; at < bytes; at += kCacheLine) body(row + at);
    }
}

// Asks for the rows and goes on.
inline void prefetch(const ConstView& view, std::size_t element_bytes, RowRange range, std::int64_t heads, std::int64_t dim) {
  asm volatile("");  // or the compiler finds that nothing happens here, and drops the call
  for_each_line(view, element_bytes, range, heads, dim, [](const char* line) { __builtin_prefetch(line, 0, 2); });
}

// Reads a byte of each line. Loads in order train the prefetcher behind the second-level cache, which has more lines on the way
// than a core may have; prefetch instructions do not.
inline void read_lines(const ConstView& view, std::size_t element_bytes, RowRange range, std::int64_t heads, std::int64_t dim) {
  for_each_line(view, element_bytes, range, heads, dim,
                [](const char* line) { static_cast<void>(*static_cast<const volatile char*>(line)); });
}

}  // namespace hetsp::attention::cpu
