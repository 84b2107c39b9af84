// What the tests of the tensor-core kernels share: lists of tiles for a case, and their scratch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention/attention_case.h"
#include "hetsp/attention/cuda/mma/scratch.h"
#include "hetsp/attention/cuda/tile_list.h"

namespace attention_case {

struct HostTiles {
  std::vector<hetsp::attention::cuda::Tile> tiles;
  std::int32_t count = 0;
  [[nodiscard]] hetsp::attention::cuda::TileList list() const { return {tiles.data(), &count}; }
};

// Tiles of `total` rows from `begin` on, in the order and with the cuts of nobody in particular: a kernel may count on
// nothing but that each row is in one tile and that first .. last holds the segments that touch it.
inline HostTiles random_tiles(Random& random, const std::vector<Segment>& segments, std::int64_t total,
                              std::int64_t Segment::* begin, std::int64_t Segment::* end) {
  HostTiles result;
  const std::int64_t most = random.one_of<std::int64_t>({128, 128, 128, 100, 64, 17, 5});
  for (std::int64_t row = 0; row < total;) {
    const std::int64_t rows = std::min(total - row, random.chance(70) ? most : random.between(1, most));
    hetsp::attention::cuda::Tile tile{row, static_cast<std::int32_t>(rows), 0x7fffffff, -1, 1};
    for (std::int32_t i = 0; i < static_cast<std::int32_t>(segments.size()); ++i) {
      const Segment& s = segments[static_cast<std::size_t>(i)];
      if (s.*begin >= s.*end || s.*begin >= row + rows || s.*end <= row) continue;
      tile.first = std::min(tile.first, i), tile.last = i;
    }
    if (tile.first <= tile.last && random.chance(20)) {  // a loose range
      tile.first = std::max(tile.first - 1, 0);
      tile.last = std::min(tile.last + 1, static_cast<std::int32_t>(segments.size()) - 1);
    }
    result.tiles.insert(result.tiles.begin() + random.between(0, static_cast<std::int64_t>(result.tiles.size())), tile);
    row += rows;
  }
  result.count = static_cast<std::int32_t>(result.tiles.size());
  return result;
}

inline HostTiles query_tiles(Random& random, const Case& c) {
  return random_tiles(random, c.segments, c.shape.total_q, &Segment::q_begin, &Segment::q_end);
}
inline HostTiles key_tiles(Random& random, const Case& c) {
  return random_tiles(random, c.segments, c.shape.total_k, &Segment::k_begin, &Segment::k_end);
}

inline std::vector<std::int32_t> fresh_scratch() {
  std::vector<std::int32_t> words(static_cast<std::size_t>(hetsp::attention::cuda::mma::scratch_words), 0x7f7f7f7f);
  std::fill_n(words.begin(), hetsp::attention::cuda::mma::zeroed_words, 0);
  return words;
}

}  // namespace attention_case
