// In which order a persistent kernel takes its (tile, head) pairs. Tiles of one head read the same keys and values (or, in the
// backward, the same queries), each from another place on: what they share is read from memory once only while it fits the L2
// cache. So as many heads go together as fit, heads innermost within them, the longest tiles first; then the next heads. The
// short tiles at the end of some heads run beside the long ones at the begin of the next: only the last heads have an end that
// waits.
//
// C++17, host and device.
#pragma once

#include <cstdint>

namespace hetsp::attention::cuda::hopper {

#if defined(__CUDACC__)
#define HETSP_ITEM_ORDER __host__ __device__
#else
#define HETSP_ITEM_ORDER
#endif

struct Item {
  std::int32_t tile, head;
};

// Items 0 .. tiles * heads - 1; `together` heads at a time, 1 .. heads.
HETSP_ITEM_ORDER constexpr Item item_at(std::int32_t item, std::int32_t tiles, std::int32_t heads, std::int32_t together) {
  const std::int32_t block = item / (tiles * together), rest = item - block * tiles * together, head0 = block * together;
  const std::int32_t width = heads - head0 < together ? heads - head0 : together;
  return {rest / width, head0 + rest % width};
}

#undef HETSP_ITEM_ORDER

// How many query heads go together where `bytes` are what one kv head's tiles share: whole groups of the query heads that share
// it, of as many kv heads as fit the budget, or four, in blocks as equal as can be.
//
// Measured on an H200 (60 MB of L2, forward, TFLOP/s, 16 heads by 2, 4, 8, 16 at a time): one document of 16K 531, 546, 563,
// 564; 4 x 4K 542, 556, 564, 562; 16 x 1K 394, 407, 395, 392; 64K + 250 x 256 with 8 heads 563 by 2, 573 by 4, 559 by 8. Few
// heads wait for their longest tiles at the end, many find less of each other's reading in the cache.
constexpr std::int32_t heads_together(std::int64_t bytes, std::int64_t heads, std::int64_t heads_kv) {
  constexpr std::int64_t budget = 72 << 20, least = 4;
  const std::int64_t fitting = bytes <= 0 ? heads_kv : budget / bytes < least ? least : budget / bytes;
  const std::int64_t blocks = (heads_kv + fitting - 1) / fitting;
  return static_cast<std::int32_t>((heads_kv + blocks - 1) / blocks * (heads / heads_kv));
}

}  // namespace hetsp::attention::cuda::hopper
